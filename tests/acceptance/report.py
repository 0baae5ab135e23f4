"""Print how well the node follows TOPEX through December 1996: ``python tests/acceptance/report.py``.

Needs the real data: $FUSIONNODE_DATA, or ``shared/data`` beside the repository.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from radar_truth import REPOSITORY, Topex, process, read_states, records, score

FILES = ("22076_dec1996.b3.gz", "13736_dec1996.b3.gz", "22823_dec1996.b3.gz")


def main() -> int:
    """Two runs: TOPEX alone, and the three objects' files in one feed."""
    folder = Path(os.environ.get("FUSIONNODE_DATA", REPOSITORY.parent / "shared" / "data")) / "ssn_radar"
    if not folder.is_dir():
        print(f"no real data at {folder}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    truth = Topex(folder)
    times = [(t, sensor) for t, sensor, _ in records(folder / FILES[0])]
    for title, files in (("TOPEX alone", FILES[:1]), ("three objects in one feed", FILES)):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "states.jsonl"
            summary = process(*(folder / name for name in files), out=out)
            scores = score(read_states(out), times, truth)
        rms = np.array([s.rms_m for s in scores])
        print(f"{title}: {summary['records']} records at {summary['records_per_s']} records/s,"
              f" {summary['tracks_begun']} tracks begun")  # fmt: skip
        print(f"  passes of 100 records or more: {len(scores)}; within 2 km rms: {np.mean(rms < 2e3):.1%};"
              f" median {np.median(rms):.0f} m, 90th percentile {np.percentile(rms, 90):.0f} m")  # fmt: skip
        print(f"  records before confirmation, at most: {max(s.confirmed_after for s in scores)};"
              f" held to within 2 s of the end: {np.mean([s.held_to_s <= 2.0 for s in scores]):.1%}")  # fmt: skip
        for name, ledger in dict(summary["sensors"]).items():  # type: ignore[call-overload]
            counts = dict(ledger)
            print(
                f"  {name:10s} {counts.pop('in')} in = " + " + ".join(f"{n} {k}" for k, n in counts.items())
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
