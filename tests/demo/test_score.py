"""The demo's judgement: it must find fault with what is wrong, and only with that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionnode.client import State, Tombstone
from fusionnode.core.timescales import utc_text
from fusionnode_hil.demo import score
from fusionnode_hil.demo.score import Fix, Histories, History, ObjectScore, Sighting
from fusionnode_hil.times import NS, parse_time
from fusionnode_hil.truth import Truth, load

ELEMENTS = Path(__file__).parents[2] / "configs" / "elements" / "demo.tle"
T0 = parse_time("2006-06-25T12:36:30")
BODY = 1  # CBERS 2
SIGMA_M = 100.0


@pytest.fixture(scope="module")
def truth() -> Truth:
    return load([ELEMENTS])


def times(n: int = 40, start_s: int = 0, step_s: int = 5) -> list[int]:
    return [T0 + (start_s + i * step_s) * NS for i in range(n)]


def history(truth: Truth, track: str = "t-1", *, off_m: float = 50.0, **changes: object) -> History:
    at = changes.pop("at", times())
    r = truth.states(at)[BODY, :, :3]  # type: ignore[arg-type]
    step = np.array([off_m / np.sqrt(3.0)] * 3)
    fixes = [Fix(t, x + step, np.eye(3) * SIGMA_M**2, True) for t, x in zip(at, r, strict=True)]  # type: ignore[call-overload]
    number = changes.pop("sat_no", truth.bodies[BODY].sat_no)
    return History(track, fixes, number, **changes)  # type: ignore[arg-type]


def seen(at: list[int] | None = None) -> list[Sighting]:
    return [Sighting(t, BODY, "radar") for t in at or times()]


def judged(
    truth: Truth, *tracks: History, sightings: list[Sighting] | None = None
) -> tuple[ObjectScore, list[str]]:
    numbers = [body.sat_no for body in truth.bodies]
    scores, false = score.objects(tracks, truth, seen() if sightings is None else sightings, numbers)
    return scores[0], false


def test_a_good_track_is_held(truth: Truth) -> None:
    one, false = judged(truth, history(truth))
    assert (one.trackable, one.held, one.trouble, false) == (True, True, "", [])
    assert one.error_rms_m == pytest.approx(50.0)
    assert one.sigmas_end == pytest.approx(0.5)
    assert one.sigma_end_m == pytest.approx(SIGMA_M * np.sqrt(3.0))
    assert one.detections == {"radar": 40}


def test_no_track_at_all_is_a_miss(truth: Truth) -> None:
    one, _ = judged(truth)
    assert (one.trackable, one.held, one.trouble) == (True, False, "no track")


def test_an_object_seen_too_briefly_need_not_be_tracked(truth: Truth) -> None:
    one, _ = judged(truth, sightings=seen(times(score.MIN_SIGHTINGS - 1)))
    assert (one.trackable, one.held, one.trouble) == (False, False, "")


def test_a_long_break_makes_two_stretches_and_each_has_to_be_held(truth: Truth) -> None:
    later = times(40, start_s=1_000)
    first = history(truth, ended_ns=T0 + 500 * NS, reason="dropped")
    one, _ = judged(truth, first, sightings=seen(times() + later))
    assert one.trouble == "no track"
    one, _ = judged(truth, first, history(truth, "t-2", at=later), sightings=seen(times() + later))
    assert one.held


def test_a_track_that_stopped_long_before_the_end_is_not_held(truth: Truth) -> None:
    one, _ = judged(truth, history(truth, at=times(10)))
    assert "old" in one.trouble


def test_an_error_beyond_the_tracks_own_sigmas_is_not_held(truth: Truth) -> None:
    one, _ = judged(truth, history(truth, off_m=(score.HELD_SIGMA + 1.0) * SIGMA_M))
    assert "sigmas" in one.trouble


def test_a_large_error_is_not_excused_by_large_sigmas(truth: Truth) -> None:
    track = history(truth, off_m=(score.HELD_KM + 1.0) * 1e3)
    track.fixes = [fix._replace(P=fix.P * 1e6) for fix in track.fixes]
    one, _ = judged(truth, track)
    assert "km" in one.trouble


def test_a_telescope_alone_is_not_asked_for_more_than_it_can_measure(truth: Truth) -> None:
    track = history(truth, off_m=(score.HELD_KM + 1.0) * 1e3)
    track.fixes = [fix._replace(P=fix.P * 1e4) for fix in track.fixes]
    one, _ = judged(truth, track, sightings=[s._replace(sensor="telescope") for s in seen()])
    assert one.held


def test_a_track_of_nothing_is_false(truth: Truth) -> None:
    _, false = judged(truth, history(truth, "t-1"), history(truth, "t-2", off_m=2e3 * score.FALSE_KM))
    assert false == ["t-2"]


def test_another_objects_name_is_a_fault_and_so_is_none(truth: Truth) -> None:
    one, _ = judged(truth, history(truth, sat_no=5))
    assert "another object's name" in one.trouble
    one, _ = judged(truth, history(truth, sat_no=None))
    assert "not given its name" in one.trouble


def test_two_tracks_of_one_object_at_a_time_are_double_unless_merged(truth: Truth) -> None:
    numbers = [body.sat_no for body in truth.bodies]
    first, second = history(truth), history(truth, "t-2", at=times(20, start_s=50))
    scores, _ = score.objects([first, second], truth, seen(), numbers)
    assert score.doubles([first, second], scores) == ["t-2"]
    second.reason, second.ended_ns = "merged", second.fixes[-1].t_ns
    assert score.doubles([first, second], scores) == []
    second.reason, first.ended_ns = None, T0 + 40 * NS
    assert score.doubles([first, second], scores) == []


def test_books_that_do_not_balance_are_found() -> None:
    good = {"in": 10, "used": 7, "late": 2, "pending": 1}
    assert score.ledger_faults({"radar": good}) == []
    assert score.ledger_faults({"radar": {**good, "used": 6}}) == [
        "radar: 10 detections in, but 9 accounted for"
    ]


def test_histories_are_what_the_stream_said(truth: Truth) -> None:
    cov = [0.0] * 21
    cov[0], cov[1], cov[2], cov[3], cov[4], cov[5] = 1.0, 0.1, 2.0, 0.2, 0.3, 3.0
    fields = {"trackId": "t", "epoch": utc_text(T0), "satNo": 7, "status": "coasting", "cov": cov}
    fields |= {"xpos": 1.0, "ypos": 2.0, "zpos": 3.0}
    histories = Histories()
    histories.take(
        [State(1, fields), Tombstone(2, "t", "dropped", utc_text(T0 + NS)), Tombstone(3, "x", "dropped")]
    )  # type: ignore[arg-type]
    track = histories.by_track["t"]
    assert (track.sat_no, track.ended_ns, track.reason) == (7, T0 + NS, "dropped")
    (fix,) = track.fixes
    assert (fix.t_ns, fix.confirmed) == (T0, False)
    np.testing.assert_allclose(fix.r, [1e3, 2e3, 3e3])
    np.testing.assert_allclose(fix.P, np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]]) * 1e6)
