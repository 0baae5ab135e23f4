"""Saved state on disk: whole, or told to be not; never half."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from fusionnode import cli
from fusionnode.record import state_file
from fusionnode.record.state_file import Saver, StateError, decode, encode

STATE = {
    "node": "n",
    "t_ns": 1_750_000_000_000_000_000,
    "big": -(1 << 62),
    "none": None,
    "list": [1, [2.5, "x"]],
    "by_number": {7: 8},
    "a": np.arange(6.0).reshape(2, 3),
    "b": np.array([True, False]),
    "c": np.array([1, 1 << 63], np.uint64),
    "empty": np.zeros((0, 36)),
}


def test_a_state_comes_back_as_it_was(tmp_path) -> None:
    path = tmp_path / "there" / "s.fns"
    state_file.write(path, encode(STATE))
    got, data = state_file.read(path)
    assert data == encode(STATE)
    for name, value in STATE.items():
        if isinstance(value, np.ndarray):
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)
        else:
            assert got[name] == value
    got["a"][0] = 5.0  # it may be written to


def test_every_damage_is_refused_in_one_line(tmp_path) -> None:
    data = encode(STATE)
    rng = np.random.default_rng(1)
    path = tmp_path / "s.fns"
    damaged = [b"", data[:5], data[:51], data[:-1], data + b"x", b"x" + data, bytes(len(data))]
    for at in rng.integers(0, len(data), 200).tolist():
        damaged.append(data[:at] + bytes([data[at] ^ (1 + at % 255)]) + data[at + 1 :])
    for wrong in damaged:
        path.write_bytes(wrong)
        with pytest.raises(StateError) as told:
            state_file.read(path)
        assert "\n" not in str(told.value)
        assert str(path) in str(told.value)


def test_a_newer_version_is_refused() -> None:
    data = bytearray(encode(STATE))
    struct.pack_into("<I", data, 8, state_file.VERSION + 1)
    with pytest.raises(StateError, match="newer"):
        decode(bytes(data))


def test_what_cannot_be_written_leaves_the_old_one_and_is_told_once(tmp_path) -> None:
    told: list[str | None] = []
    path = tmp_path / "s.fns"
    saver = Saver(path, told.append)
    saver.save({"n": 1})
    assert saver.close()
    before = path.read_bytes()
    saver = Saver(path, told.append)
    saver.save({"n": object()})
    assert not saver.close()
    assert path.read_bytes() == before
    assert len(told) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.fns"]


def test_the_operator_is_told_of_a_file_that_is_none(tmp_path, capsys) -> None:
    path = tmp_path / "s.fns"
    path.write_bytes(encode({"some": "thing"}))
    assert cli.main(["state", "show", str(path)]) == 1
    assert "not the state of a node" in capsys.readouterr().err
    path.write_bytes(b"rubbish")
    assert cli.main(["state", "show", "--json", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(err)
