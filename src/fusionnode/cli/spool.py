"""States of a whole run on disk, to be smoothed track by track when it is over.

Memory holds sixteen bytes a state (its track, and its place in the order of tracks) and one block of states at a time;
the rest is a file without a name beside the output.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusionnode.core.types import TRACK_STATE, StructArray
from fusionnode.track.filtering.smoother import BLOCK, DailyDynamics, smooth_in_place

if TYPE_CHECKING:
    from fusionnode.config import Config
    from fusionnode.core.refframes import EarthOrientation


def cannot_smooth(config: Config) -> str | None:
    """Why states made with this configuration cannot be smoothed, if that is so."""
    t = config.tracking
    if t.modes == "imm" or t.consider_biases or t.estimate:
        return "smoothing does not go with tracking.modes = 'imm', consider_biases or estimate"
    return None


class Spool:
    """Takes TRACK_STATE arrays, and gives them back smoothed, one track after the other.

    Args:
        folder: where the file without a name is made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as this
        self._tracks: list[np.ndarray] = []

    def add(self, states: StructArray) -> None:
        """Take TRACK_STATE[n], in the order of the run."""
        self._file.write(np.ascontiguousarray(states).tobytes())
        self._tracks.append(states["track"].copy())

    def smoothed(self, config: Config, orientation: EarthOrientation) -> Iterator[StructArray]:
        """The smoothed states: TRACK_STATE arrays, ascending in track and then in time."""
        self._file.flush()
        track = np.concatenate(self._tracks) if self._tracks else np.zeros(0, np.int64)
        if len(track) == 0:
            return
        self._tracks = [track]
        states = np.memmap(self._file, TRACK_STATE, "r+", shape=(len(track),))
        order = np.argsort(track, kind="stable")
        edges = np.flatnonzero(np.diff(track[order])) + 1
        dynamics_at = DailyDynamics(config.tracking, orientation)
        psd = config.tracking.process_noise_psd_m2_s3
        for own in np.split(order, edges):
            gathered = _Gathered(states, own)
            smooth_in_place(gathered, dynamics_at, psd)
            for start in range(0, len(own), BLOCK):
                yield gathered[start : start + BLOCK]

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


class _Gathered:
    """Rows of a memory-mapped array, read and written when they are asked for."""

    def __init__(self, states: StructArray, rows: np.ndarray) -> None:
        self._states = states
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> StructArray:
        return self._states[self._rows[part]]

    def __setitem__(self, part: slice, states: StructArray) -> None:
        self._states[self._rows[part]] = states
