"""States a second through release groups, beside the own stream's encoder: ``python tests/bench/release_groups.py``.

One thread, states in batches of 100 (as a busy tick gives them), groups of one rule each.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "release"))

from test_group_stream import NS, OBJECTS, T0_NS, Bench, state, station

from fusionnode.core.refframes import EarthOrientation
from fusionnode.release.wire import StreamEncoder

N, BATCH = 10_000, 100
GROUP = """
[group.g{k}]
endpoint = "tcp://0.0.0.0:{a}"
request_endpoint = "tcp://0.0.0.0:{b}"
classification_marking = "R"
releasable_to = ["GBR"]
[[group.g{k}.rule]]
name = "r"
{rule}
"""


def sky(second: int) -> np.ndarray:
    out = np.concatenate([state(1, 0.0)] * N)
    out["track"] = np.arange(N)
    out["epoch_ns"] = out["last_ob_ns"] = T0_NS + second * NS
    out["object"] = np.arange(N) % 3 - 1
    return out


def seconds(bench: Bench) -> float:
    spent = []
    for second in range(4):
        states = sky(second)
        begin = time.perf_counter()
        for first in range(0, N, BATCH):
            bench.groups.states(states[first : first + BATCH], T0_NS + second * NS)
        bench.groups.turn(T0_NS + second * NS, dict)
        for stream in bench.groups.streams:
            stream.take()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def main() -> None:
    orientation = EarthOrientation()
    encoder = StreamEncoder(
        node_id="n", stream_epoch="e", sensor_names=["a"], known_object=lambda row: OBJECTS[row % 2]
    )
    states, spent = sky(0), []
    for _ in range(4):
        begin = time.perf_counter()
        for first in range(0, N, BATCH):
            encoder.states(states[first : first + BATCH])
        spent.append(time.perf_counter() - begin)
    print(f"own stream:                          {N / min(spent):8.0f} states/s")
    for rule in ("", "precision_m = 100", "perigee_km = [0, 2000]\narea = { lat_deg = [-80, 80] }"):
        for n in (1, 8):
            more = "".join(GROUP.format(k=k, a=6000 + 2 * k, b=6001 + 2 * k, rule=rule) for k in range(n - 1))
            rules = f'[[group.g.rule]]\nname = "r"\n{rule}\n'
            rate = N / seconds(Bench(orientation, station(rules, more=more)))
            what = rule.replace("\n", ", ") or "no condition"
            print(f"{n} groups, {what:52s} {rate:8.0f} states/s, {n * rate:8.0f} messages/s")


if __name__ == "__main__":
    main()
