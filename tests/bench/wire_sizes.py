"""What a state costs on the wire and at its two ends: bytes, microseconds. ``python tests/bench/wire_sizes.py``.

States of a run (``states.jsonl`` of `fusionnode process`) if one is named, else random orbits with strong correlations.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fusionnode.client import decode
from fusionnode.client.following import Following
from fusionnode.client.picture import Picture
from fusionnode.core import compact, schema

N = 2_000
BATCH = 20  # states in one paced message


def made(n: int) -> dict[str, Any]:
    """A state's fields, as they might be."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=6) * np.repeat([7e3, 7.0], 3)
    a = 0.1 * rng.normal(size=(6, 6)) + 0.9 * rng.normal(size=(6, 1))
    P = a @ a.T * np.outer(*[np.repeat([1e-2, 1e-5], 3)] * 2)
    known = n % 2 == 0
    time_text = f"2026-03-01T12:{n // 60 % 60:02d}:{n % 60:02d}.{n * 997 % 1_000_000:06d}Z"
    keys = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
    return {
        "trackId": f"alpha-{n:06d}",
        "epoch": time_text,
        "referenceFrame": "GCRF",
        **dict(zip(keys, x.tolist(), strict=True)),
        "cov": P[np.tril_indices(6)].tolist(),
        "covReferenceFrame": "GCRF",
        "status": "confirmed",
        "uct": not known,
        "satNo": 40_000 + n if known else None,
        "idOnOrbit": f"2015-{n % 100:03d}A" if known else f"alpha-{n:06d}",
        "name": f"OBJECT {n}" if known else None,
        "objectProbability": 0.998 if known else None,
        "sensors": ["north", "south"][: 1 + n % 2],
        "lastObEnd": time_text,
        "nis": float(rng.chisquare(4)),
        "dof": 4,
        "updates": int(rng.integers(5, 500)),
        "existence": 0.9999,
        "classificationMarking": "U",
        "dataMode": "TEST",
        "source": "fusionnode",
    }


def microseconds(do: Callable[[], Any], n: int) -> float:
    """The least of three, for each of ``n``."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        do()
        best = min(best, time.perf_counter() - start)
    return best / n * 1e6


def batched(packed: list[bytes]) -> float:
    """Bytes a state, compressed in batches as the paced mode sends them."""
    parts = [b"".join(packed[i : i + BATCH]) for i in range(0, len(packed), BATCH)]
    return sum(len(zlib.compress(part)) for part in parts) / len(packed)


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open(encoding="utf-8") as file:
            lines = [json.loads(line) for line, _ in zip(file, range(20 * N), strict=False)]
        bodies = [line for line in lines if line.get("type") in (None, schema.TYPE_STATE)][-N:]
        for body in bodies:
            body.pop("type", None)
    else:
        bodies = [made(n) for n in range(N)]
    envelope = {"v": 1, "type": "state", "streamEpoch": "alpha-1871f2"}
    markings = {"provenance": ["alpha"], "releasableTo": ["FRA", "GBR"]}
    payloads = [msgpack.packb({**envelope, "seq": n, **body, **markings}) for n, body in enumerate(bodies)]
    topics = [schema.TOPIC_STATE + body["trackId"].encode() for body in bodies]
    records = [compact.pack_state(payload) or payload for payload in payloads]
    n = len(payloads)
    arrays = [item for item in map(msgpack.unpackb, records) if type(item) is list]
    print(f"{n} states, {n - len(arrays)} of them do not fit a compact record")
    print(f"bytes a state: payload {sum(map(len, payloads)) / n:.0f}, zlib in {BATCH}s {batched(payloads):.0f}; "
          f"compact {sum(map(len, records)) / n:.0f}, zlib in {BATCH}s {batched(records):.0f}")  # fmt: skip
    print(f"compact record: made in {microseconds(lambda: [*map(compact.pack_state, payloads)], n):.0f} us, "
          f"read in {microseconds(lambda: [compact.decode(a, 'e') for a in arrays], len(arrays)):.0f} us")  # fmt: skip

    def follow(verify: decode.Verify | None, row: list[bytes]) -> None:
        following = Following(Picture())
        for topic, payload in zip(topics, row, strict=True):
            following.live(decode.live(topic, payload, verify))

    print(f"client, a live message: {microseconds(lambda: follow(None, payloads), n):.0f} us")
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        return
    from fusionnode.client.signature import Signer

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    verify = Signer(key.public_key().public_bytes_raw().hex()).verify
    signed = [msgpack.packb(msgpack.unpackb(payload) | {"sig": key.sign(payload)}) for payload in payloads]
    print(f"client, a live message that is signed: {microseconds(lambda: follow(verify, signed), n):.0f} us")


if __name__ == "__main__":
    main()
