"""What each filter costs: predict+update pairs a second on one core, and how that compares to the extended filter."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from bench_sky import Scene, station

from fusionnode.track import picture
from fusionnode.track.association import associate
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.filtering.engine_variants import kept_beside, make_engine

TRACKS = 10_000
ROUNDS = 5
FILTERS: dict[str, dict[str, object]] = {
    "extended": {},
    "unscented": {"filter": "ukf"},
    "two modes": {"modes": "imm"},
    "biases considered": {"consider_biases": True},
}


def scene_of(keys: dict[str, object], plain: Scene) -> tuple[picture.Picture, associate.Room, Engine]:
    """The plain scene's tracks with room for what this filter keeps, and its engine."""
    tracking = station().tracking.model_copy(update=keys)
    beside = kept_beside(tracking)
    tracks = picture.make_picture(TRACKS, beside)
    for to, of in zip(tracks, plain.tracks, strict=True):
        if to.shape == of.shape:
            to[:] = of
    room = associate.make_room(TRACKS, TRACKS, beside)
    room.slots[:], room.rows[:] = np.arange(TRACKS), np.arange(TRACKS)
    return tracks, room, make_engine(tracking)


def report() -> None:
    """Print the table."""
    plain = Scene(TRACKS)
    work = {name: scene_of(keys, plain) for name, keys in FILTERS.items()}
    took: dict[str, list[float]] = {name: [] for name in work}
    for k in range(ROUNDS + 1):
        for name, (tracks, room, engine) in work.items():
            began = perf_counter()
            engine.try_pairs(tracks, plain.measurements, TRACKS, plain.rules, room)
            if k:  # the first one compiles
                took[name].append(perf_counter() - began)
    print(
        f"{TRACKS} pairs, zonal dynamics, 10 s ahead, all four channels; best of {ROUNDS} alternating rounds"
    )
    best = min(took["extended"])
    for name, times in took.items():
        print(f"  {name:18s} {TRACKS / min(times):12,.0f} pairs/s, {best / min(times):6.3f} of the extended")


if __name__ == "__main__":
    report()
