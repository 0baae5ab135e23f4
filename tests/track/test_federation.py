"""Covariance intersection, matching, and what becomes of what another node says."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from fusionnode.codec.node_stream import NodeStreamDecoder
from fusionnode.core.foreign import ForeignAlive, ForeignEnd, ForeignState, ForeignWhole
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.track.federation.intersection import NotDefinite, intersect
from fusionnode.track.federation.matching import assign, candidates, distances2
from fusionnode.track.federation.origins import Origins, covers, strongest


def covariances(rng: np.random.Generator, n: int, spread: float = 1.0) -> np.ndarray:
    """(n, 6, 6) of metres and millimetres a second, with axes of very different lengths."""
    q = np.linalg.qr(rng.normal(size=(n, 6, 6)))[0]
    s = np.exp(spread * rng.normal(size=(n, 6)))
    unit = np.array([1e2] * 3 + [1e-1] * 3)
    return (q * s[:, None, :]) @ q.transpose(0, 2, 1) * np.outer(unit, unit)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_an_intersection_is_consistent_for_every_correlation(m: int) -> None:
    """Whatever the joint covariance with the given blocks, the error's covariance is no larger than what is said."""
    rng = np.random.default_rng(m)
    for _ in range(20):
        P = covariances(rng, m)
        x = np.tile([7e6, 0.0, 0.0, 0.0, 7e3, 0.0], (m, 1))
        _, F, w = intersect(x, P)
        assert w.min() >= 0.0
        assert w.sum() == pytest.approx(1.0)
        roots = np.linalg.cholesky(P)
        gains = np.array([wi * F @ np.linalg.inv(p) for wi, p in zip(w, P, strict=True)])
        # a joint covariance: each root turned by what all share
        turns = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(m)]
        for shared in ([np.eye(6)] * m, turns):
            error = sum(g @ r @ t for g, r, t in zip(gains, roots, shared, strict=True))
            margin = F - error @ error.T
            scale = np.sqrt(np.diagonal(F))
            assert np.linalg.eigvalsh(margin / np.outer(scale, scale))[0] > -1e-9


def test_an_intersection_has_the_least_determinant_of_all_weights() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        P = covariances(rng, 2)
        _, F, _ = intersect(np.zeros((2, 6)), P)
        best = min(
            np.linalg.slogdet(np.linalg.inv(w * np.linalg.inv(P[0]) + (1 - w) * np.linalg.inv(P[1])))[1]
            for w in np.linspace(0.0, 1.0, 201)
        )
        assert np.linalg.slogdet(F)[1] <= best + 1e-6


def test_the_same_said_twice_is_no_better_than_once() -> None:
    P = covariances(np.random.default_rng(4), 1)
    for m in (2, 3):
        x, F, _ = intersect(np.ones((m, 6)), np.repeat(P, m, axis=0))
        np.testing.assert_allclose(x, 1.0)
        np.testing.assert_allclose(F, P[0], rtol=1e-9)


def test_nearly_singular_covariances_give_a_finite_positive_one() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        P = covariances(rng, 2)
        thin = rng.normal(size=6) * np.array([1e5] * 3 + [1e2] * 3)
        P[1] = np.outer(thin, thin) + np.diag([1e-6] * 3 + [1e-12] * 3)
        x = np.array([7e6, 0.0, 0.0, 0.0, 7e3, 0.0]) + rng.normal(size=(2, 6))
        y, F, _ = intersect(x, P)
        assert np.isfinite(y).all()
        scale = np.sqrt(np.diagonal(F))
        assert np.linalg.eigvalsh(F / np.outer(scale, scale))[0] > 0.0


@pytest.mark.parametrize("bad", ["nan", "negative", "indefinite"])
def test_what_is_no_covariance_is_refused(bad: str) -> None:
    P = covariances(np.random.default_rng(6), 2)
    if bad == "nan":
        P[1, 2, 2] = np.nan
    elif bad == "negative":
        P[1, 0, 0] = -1.0
    else:
        P[1, 0, 1] = P[1, 1, 0] = 2.0 * np.sqrt(P[1, 0, 0] * P[1, 1, 1])
    with pytest.raises(NotDefinite):
        intersect(np.zeros((2, 6)), P)


def test_candidates_are_all_that_the_gate_lets_in_and_pairs_are_one_to_one() -> None:
    rng = np.random.default_rng(7)
    n = 300
    x = np.concatenate([rng.normal(size=(n, 3)) * 7e6, rng.normal(size=(n, 3)) * 7e3], axis=1)
    P = covariances(rng, n) * np.exp(4 * rng.random(n))[:, None, None]
    y = x + np.einsum("nij,nj->ni", np.linalg.cholesky(P), rng.normal(size=(n, 6)))
    order = rng.permutation(n)
    a, b = candidates(x, P, y[order], P[order], 27.9)
    inside = distances2(x[a], P[a], y[order][b], P[order][b]) <= 27.9
    found = set(zip(a[inside].tolist(), b[inside].tolist(), strict=True))
    assert {(int(order[k]), k) for k in range(n)} <= found
    pairs = assign(
        a[inside].tolist(), b[inside].tolist(), distances2(x[a], P[a], y[order][b], P[order][b])[inside]
    )
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == n


def test_markings_cover_what_is_no_stronger() -> None:
    assert covers("S", "U")
    assert covers("X", "X")
    assert not covers("U", "S")
    assert not covers("S", "X")
    assert not covers("S", "U//FRA")
    assert strongest(["U", "S", "C"]) == "S"
    assert strongest(["U", "X"]) is None


def test_origins_hold_back_what_their_owners_do_not_release() -> None:
    origins = Origins(62)
    first = origins.mask(["bravo"], ("GBR",), "U")
    assert first == 1 << 62
    assert origins.mask(["bravo"], ("FRA", "GBR"), "S") == 1 << 63
    assert origins.mask(["charlie"], ("GBR",), "U") is None  # no bits are left
    assert origins.forbidden(["GBR"], "U") == 1 << 63
    assert origins.forbidden(["GBR"], "S") == 0
    assert origins.forbidden(["GBR", "FRA"], "TS") == 1 << 62
    assert origins.nodes(3 << 62) == ["bravo"]
    assert origins.releasable_to(3 << 62) == ["GBR"]


STATE: dict[str, Any] = {
    "v": 1, "type": "state", "streamEpoch": "b-1", "seq": 7, "trackId": "b-1", "epoch": "2025-09-01T00:00:00.000000Z",
    "referenceFrame": "GCRF", "xpos": 7000.0, "ypos": 0.0, "zpos": 0.0, "xvel": 0.0, "yvel": 7.0, "zvel": 0.0,
    "cov": [1e-4 if k in (0, 2, 5, 9, 14, 20) else 0.0 for k in range(21)], "covReferenceFrame": "GCRF",
    "status": "confirmed", "classificationMarking": "U", "dataMode": "TEST", "source": "b",
    "provenance": ["b"], "releasableTo": ["A"],
}  # fmt: skip


def decoded(*payloads: bytes) -> tuple[list[Any], dict[str, int]]:
    outcomes = Outcomes()
    out = NodeStreamDecoder("link:b", outcomes).decode([(0, p) for p in payloads])
    return out, outcomes.of("link:b")


def test_states_ends_and_snapshots_are_read() -> None:
    end = {k: STATE[k] for k in ("v", "streamEpoch", "seq", "trackId")} | {"type": "tombstone"}
    head = {"v": 1, "type": "snapshot", "id": 1, "streamEpoch": "b-1", "seq": 7, "count": 2}
    beat = {k: STATE[k] for k in ("v", "streamEpoch", "seq")} | {"type": "heartbeat", "nodeId": "b"}
    out, counts = decoded(
        msgpack.packb(STATE),
        msgpack.packb(end),
        msgpack.packb(head) + msgpack.packb(STATE) + msgpack.packb(beat),
    )
    assert [type(item) for item in out] == [
        ForeignState,
        ForeignEnd,
        ForeignState,
        ForeignAlive,
        ForeignWhole,
    ]
    assert out[0].x.tolist() == [7e6, 0.0, 0.0, 0.0, 7e3, 0.0]
    assert out[0].P[3, 3] == 100.0
    assert out[4].track_ids == ("b-1",)
    assert counts == {"frame_accepted": 5}


@pytest.mark.parametrize(
    "change",
    [{"xpos": float("nan")}, {"xpos": "7"}, {"cov": [0.0]}, {"epoch": "soon"}, {"epoch": "2025-13-01T00:00:00.000000Z"},
     {"status": []}, {"provenance": [1]}, {"satNo": -1}, {"referenceFrame": "TEME"}, {"existence": 2.0},
     {"trackId": "\x1b[2J"}, {"updates": 1 << 60}, {"releasableTo": "A"}],
)  # fmt: skip
def test_a_wrong_field_is_counted(change: dict[str, Any]) -> None:
    out, counts = decoded(msgpack.packb(STATE | change))
    assert out == []
    assert counts == {"frame_bad_field": 1}


def test_no_bytes_raise_and_all_are_counted() -> None:
    rng = np.random.default_rng(8)
    whole = msgpack.packb(STATE)
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 1 + rng.integers(0, 4)):
            data[at] = rng.integers(0, 256)
        _, counts = decoded(bytes(data[: rng.integers(1, len(data) + 1)]))
        assert sum(counts.values()) >= 1
    for odd in (b"\xc1", b"\x91" * 5000, b"\xdf\xff\xff\xff\xff", msgpack.packb(1) * 3, b"\x81\x90\x01"):
        assert sum(decoded(odd)[1].values()) >= 1
    assert Outcome.FRAME_MALFORMED.value in decoded(b"\xc1")[1]
