"""Messages with random legal values, their frames, and the tools' plain decoder as a second opinion."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import repack_fields

from fusionnode.codec import wire
from fusionnode.codec.framing import frame
from fusionnode.codec.wire import MessageType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "firmware_interfaces" / "tools"))
import wirelib

T_NS = 1_795_478_437_000_000_000
INTERFACE = wirelib.read_interface()

Rows = npt.NDArray[np.void]


def messages(kind: MessageType, n: int, seed: int = 1, first_seq: int = 0) -> Rows:
    """n legal messages; every field random over what its integer and the interface allow."""
    dtype = wire.MESSAGES[kind]
    rng = np.random.default_rng((seed, kind))
    rows = np.frombuffer(rng.bytes(n * dtype.itemsize), dtype).copy()
    header = np.zeros(n, wire.HEADER)
    header["version"], header["type"], header["length"] = wire.WIRE_VERSION, kind, dtype.itemsize
    header["flags"] = rng.integers(0, wire.FLAGS_ALL + 1, n)
    header["sensor_id"] = rng.integers(1, 2**32, n)
    header["seq"] = first_seq + np.arange(n)
    header["t_ns"] = T_NS + rng.integers(0, 10**12, n)
    rows["header"] = header
    rows["reserved"] = 0
    quarter = wire.QUARTER_TURN_BAM32
    limits = {
        "range_mm": (1, 10**14),
        "el_bam32": (-quarter, quarter + 1),
        "lat_bam32": (-quarter, quarter + 1),
        "coordinates": (0, 2),
        "mode": (0, 5),
        "source": (0, 4),
        "result": (0, 5),
        "received_ns": (0, wire.TIME_LIMIT_NS),
        "until_ns": (0, wire.TIME_LIMIT_NS),
    }
    for name, (low, end) in limits.items():
        if name in (dtype.names or ()):
            rows[name] = rng.integers(low, end, n)
    if kind == MessageType.RADAR:
        rows["valid"] = rng.integers(1, 4, n) | rng.integers(0, 8, n) << 2
    if kind == MessageType.OPTICAL:
        rows["valid"] = rng.choice([0x02, 0x22], n)
    if kind == MessageType.STATUS:
        rows["health"] &= wire.HEALTH_ALL
    return rows


def frames(rows: Rows) -> list[bytes]:
    return [frame(row.tobytes()) for row in rows]


def sensor_frames(n: int, seed: int = 1) -> list[bytes]:
    """n frames of all kinds that a sensor sends, mixed."""
    kinds = [kind for kind in MessageType if kind != MessageType.COMMAND]
    pools = {kind: frames(messages(kind, n, seed)) for kind in kinds}
    return [pools[kinds[k]][i] for i, k in enumerate(np.random.default_rng(seed).integers(0, len(kinds), n))]


def plain_counts(stream: bytes) -> tuple[dict[str, int], list[bytes]]:
    """What the plain decoder sees: frames by verdict (rubbish in bytes), and the messages it accepts."""
    counts: Counter[str] = Counter()
    accepted = []
    for verdict, content in wirelib.frames(INTERFACE, stream):
        outside = verdict in ("rubbish", "unfinished")
        counts["rubbish" if outside else verdict] += len(content) if outside else 1
        if verdict == "accepted":
            accepted.append(content)
    return dict(counts), accepted


def content(detections: Rows) -> bytes:
    """All values of a structured array without the bytes between fields, which mean nothing."""
    return repack_fields(detections).tobytes()
