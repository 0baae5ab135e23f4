"""What the watch of a stream makes of events."""

from __future__ import annotations

from view_samples import state

from fusionnode.client import EpochChange, Gap, Stale, State, Synced, Tombstone
from fusionnode.ops.stream_watch import StreamWatch


def test_a_track_is_told_of_when_it_begins_changes_and_ends() -> None:
    watch = StreamWatch()
    new = state("n-1", uct=True, name=None, satNo=None)
    told = watch.take(
        [
            State(1, new),
            State(2, new),
            State(3, state("n-1")),
            State(4, state("n-1", status="coasting")),
            State(5, state("n-1")),
            Tombstone(6, "n-1", "dropped", "2006-06-25T12:50:00.000000Z"),
        ]
    )
    assert [(h.kind, h.text) for h in told] == [
        ("confirmed", "n-1 (uncorrelated) confirmed, seen by radar"),
        ("confirmed", "n-1 is VANGUARD 1"),
        ("coasting", "n-1 (VANGUARD 1) coasting"),
        ("confirmed", "n-1 (VANGUARD 1) seen again"),
        ("ended", "n-1 (VANGUARD 1) ended: dropped"),
    ]
    assert (watch.begun, watch.ended, watch.node_time) == (1, 1, "2006-06-25T12:50:00.000000Z")


def test_gaps_count_until_a_snapshot_mends_them() -> None:
    watch = StreamWatch()
    watch.take([Gap(9, 3)])
    assert (watch.gaps, watch.missed, watch.unmended) == (1, 3, True)
    watch.take([Synced("e", 20, 4)])
    assert (watch.gaps, watch.unmended) == (1, False)


def test_silence_lasts_until_the_next_message() -> None:
    watch = StreamWatch()
    watch.take([State(1, state("n-1")), Stale(6.0)])
    assert watch.stale
    watch.take([State(2, state("n-1"))])
    assert not watch.stale


def test_a_new_stream_begins_with_no_tracks_known() -> None:
    watch = StreamWatch()
    told = watch.take([State(1, state("n-1")), EpochChange("a", "b"), State(1, state("n-1"))])
    assert [h.kind for h in told] == ["confirmed", "trouble", "confirmed"]


def test_only_the_newest_happenings_are_kept_and_none_is_told_twice() -> None:
    watch = StreamWatch()
    for i in range(100):
        watch.take([State(i + 1, state(f"n-{i}"))])
    assert watch.happened == 100
    assert [h.text[:5] for h in watch.told(98)] == ["n-98 ", "n-99 "]
    assert len(watch.told(0)) == len(watch.log) < 100
    assert watch.told(100) == []
