"""A few states, and an encoder whose stream is the same in each test."""

import socket

import numpy as np
import pytest

from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, KnownObject, Status
from fusionnode.release.wire import StreamEncoder

T0_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")
ISS = KnownObject(25544, "ISS (ZARYA)", "1998-067A")


def states(n, first=0):
    """TRACK_STATE[n]: tracks ``first``... with random orbits and covariances; every other one is known."""
    rng = np.random.default_rng(7)
    out = np.zeros(n, TRACK_STATE)
    out["track"] = np.arange(first, first + n)
    out["epoch_ns"] = T0_NS + np.arange(n) * 1_234_567_891
    out["last_ob_ns"] = out["epoch_ns"] - 5_000_000_000 * (np.arange(n) % 3)
    out["status"] = Status.CONFIRMED
    out["x"] = rng.normal(size=(n, 6)) * np.repeat([7e6, 7e3], 3)
    a = rng.normal(size=(n, 6, 6)) * 30
    out["P"] = a @ a.transpose(0, 2, 1)
    out["sensors"] = 1 + np.arange(n) % 3
    out["object"] = np.arange(n) % 2 - 1
    out["updates"] = 40
    out["nis"] = 3.75
    out["dof"] = 4
    return out


@pytest.fixture(name="states")
def _states():
    return states


@pytest.fixture
def encoder():
    """A function that makes new encoders of one and the same stream."""

    def make(**changes):
        names = {"node_id": "alpha", "stream_epoch": "alpha-1", "sensor_names": ["north", "south"]}
        return StreamEncoder(**(names | {"known_object": lambda _row: ISS} | changes))

    return make


@pytest.fixture
def addresses():
    """Two TCP addresses of this computer that nobody uses."""
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in (a, b)]
