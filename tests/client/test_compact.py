"""Compact records: on the grid, on the safe side, and small."""

import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_states import KEYS, LOWER, orbit, state

from fusionnode.client import decode
from fusionnode.core import compact, schema


def square(body):
    P = np.zeros((6, 6))
    P[LOWER] = body["cov"]
    return np.tril(P) + np.tril(P, -1).T


def of_wire(body):
    return compact.decode(msgpack.unpackb(compact.pack_state(msgpack.packb(body))), body["streamEpoch"])


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32), st.floats(-4, 3), st.floats(-8, 0), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])
)
def test_what_is_read_is_within_the_rounding_and_its_covariance_is_definite_and_not_smaller(seed, p, v, c):
    x, P = orbit(seed, p, v, c)
    body = state(x, P)
    if compact.encode(body) is None:
        assert np.linalg.cond(P / np.sqrt(np.outer(np.diag(P), np.diag(P)))) > 1e9
        return
    read = of_wire(body)
    error = np.array([read[key] for key in KEYS]) - x
    conditional = 1 / np.sqrt(np.diag(np.linalg.inv(P)))
    assert (np.abs(error) <= conditional / 40 * (1 + 1e-6) + 1e-12 * np.abs(x)).all()
    d = np.sqrt(np.diag(P))
    scaled = square(read) / np.outer(d, d)
    assert np.linalg.eigvalsh(scaled)[0] > 0
    assert np.linalg.eigvalsh(scaled - P / np.outer(d, d))[0] >= -1e-13
    # And not much larger in any direction.
    root = np.linalg.inv(np.linalg.cholesky(P))
    assert np.linalg.eigvalsh(root @ square(read) @ root.T)[-1] < 1.2


def test_all_but_the_numbers_on_a_grid_is_the_same():
    body = state(*orbit(1), satNo=25544, uct=False, name="ISS", idOnOrbit="1998-067A", objectProbability=0.98)
    read = of_wire(body)
    rounded = {*KEYS, "cov", "nis", "existence"}
    assert {k: v for k, v in read.items() if k not in rounded} == {
        k: v for k, v in body.items() if k not in rounded
    }
    assert list(read) == list(body)
    assert (read["nis"], read["existence"]) == (3.75, 0.9999)
    assert decode.live(b"state.a-000001", msgpack.packb(read)).body["satNo"] == 25544


def test_what_was_withheld_stays_withheld():
    hidden = ("uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors", "lastObEnd", "nis", "dof")
    hidden += ("updates", "existence", "provenance", "releasableTo")
    body = {k: v for k, v in state(*orbit(2)).items() if k not in hidden}
    read = of_wire(body)
    assert {k: v for k, v in read.items() if k not in (*KEYS, "cov") and v is not None} == {
        k: v for k, v in body.items() if k not in (*KEYS, "cov")
    }


@pytest.mark.parametrize(
    "time",
    [
        "2016-12-31T23:59:60.999999Z",
        "2000-01-01T00:00:00.000000Z",
        "1999-12-31T23:59:59.999999Z",
        "2100-02-28T00:00:00.000001Z",
    ],
)
def test_times_come_back_to_the_microsecond_also_in_a_leap_second(time):
    read = of_wire(state(*orbit(3), epoch=time, lastObEnd=time))
    assert (read["epoch"], read["lastObEnd"]) == (time, time)


@pytest.mark.parametrize(
    "change",
    [
        {"referenceFrame": "TEME"},
        {"epoch": "2026-02-30T00:00:00.000000Z"},
        {"epoch": "2026-02-20T12:59:60.000000Z"},
        {"cov": [0.0] * 21},
        {"cov": [1.0] * 21},
        {"cov": [float("nan")] * 21},
        {"cov": []},
        {"xpos": 1e300},
        {"status": "lost"},
        {"type": "tombstone"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_sent_as_it_is(change):
    assert compact.pack_state(msgpack.packb(state(*orbit(4)) | change)) is None


@settings(deadline=None)
@given(st.data())
def test_any_array_gives_a_state_or_a_refusal(data):
    record = compact.encode(state(*orbit(5)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(record) - 1))
        record[at] = data.draw(
            st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3)
            | st.lists(st.integers(-(2**63), 2**63), min_size=21, max_size=21)
        )  # fmt: skip
    try:
        read = compact.decode(record, "e")
    except ValueError:
        return
    assert set(schema.Envelope.__annotations__) <= set(read)


def test_a_thousand_states_take_a_fifth_of_the_bytes():
    bodies = [state(*orbit(n), trackId=f"a-{n:06d}", idOnOrbit=f"a-{n:06d}", seq=n) for n in range(1000)]
    payloads = [msgpack.packb(body) for body in bodies]
    records = b"".join(map(compact.pack_state, payloads))
    plain = b"".join(payloads)
    assert len(zlib.compress(records)) < len(plain) / 5
    assert len(zlib.compress(records)) < 0.5 * len(zlib.compress(plain))
