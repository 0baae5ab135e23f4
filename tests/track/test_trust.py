"""Verdicts on sensors from made-up evidence: who is caught, who is not, and when trust comes back."""

from __future__ import annotations

import numpy as np
import pytest

from fusionnode.track.calibration.trust import (
    REASON_ASTRAY,
    REASON_DISAGREES,
    REASON_NOISY,
    REASON_UNSUPPORTED,
    Criteria,
    Evidence,
    Trust,
    TrustKeeper,
)

NS = 1_000_000_000
CRITERIA = Criteria(tracks=3, raise_ratio=4.0, clear_ratio=2.0, window_s=86_400.0, clear_s=600.0)


class Sky:
    """Visits of sensors to tracks, in time; each review 30 s after the one before."""

    def __init__(self, sensors: int) -> None:
        self.keeper = TrustKeeper(sensors, CRITERIA)
        self.t = 0
        self.track = 0

    def pair(self, sensor: int, before: int, ratio: float, tracks: int = 3, detections: int = 20) -> None:
        for _ in range(tracks):
            self.track += 1
            self.keeper.note(Evidence(self.t * NS, sensor, before, self.track, ratio, detections))

    def review(self, times: int = 1) -> None:
        for _ in range(times):
            self.t += 30
            self.keeper.review(self.t * NS)

    def states(self) -> list[Trust]:
        return [self.keeper.state(s) for s in range(len(self.keeper._judged))]


def test_the_one_that_disagrees_with_all_others_is_isolated() -> None:
    sky = Sky(3)
    for _ in range(2):
        sky.pair(0, 1, 1.0)
        sky.pair(2, 0, 8.0)
        sky.pair(1, 2, 7.0)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.OK, Trust.ISOLATED]
    assert sky.keeper.reason(2) == REASON_DISAGREES


def test_two_that_disagree_are_both_suspect_for_nothing_says_which_is_wrong() -> None:
    sky = Sky(2)
    for _ in range(2):
        sky.pair(0, 1, 9.0)
        sky.pair(1, 0, 9.0)
        sky.review()
    assert sky.states() == [Trust.SUSPECT, Trust.SUSPECT]


def test_one_that_is_led_astray_by_the_wrong_one_is_not_blamed() -> None:
    sky = Sky(3)
    for _ in range(3):
        sky.pair(0, 2, 9.0)
        sky.pair(2, 1, 9.0)
        sky.pair(1, 0, 1.2)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.OK, Trust.ISOLATED]


def test_friendship_from_before_the_quarrel_does_not_count() -> None:
    sky = Sky(3)
    for _ in range(20):
        for sensor in range(3):
            sky.pair(sensor, (sensor + 1) % 3, 1.0)
        sky.review()
    for _ in range(6):
        sky.pair(2, 1, 9.0)
        sky.pair(1, 0, 1.0)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.OK, Trust.ISOLATED]


def test_a_lone_sensor_is_suspect_when_it_is_noisy_and_never_isolated() -> None:
    sky = Sky(1)
    for _ in range(20):
        sky.pair(0, 0, 10.0)
        sky.review()
    assert sky.states() == [Trust.SUSPECT]
    assert sky.keeper.reason(0) == REASON_NOISY


@pytest.mark.parametrize("bad", [1, 2])
def test_few_objects_that_manoeuvre_or_were_mixed_up_make_no_verdict(bad: int) -> None:
    sky = Sky(2)
    for _ in range(20):
        for sensor, before in ((0, 0), (1, 1), (0, 1), (1, 0)):
            sky.track = 0
            sky.pair(sensor, before, 10.0, tracks=bad)
            sky.pair(sensor, before, 1.0, tracks=bad + 1)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.OK]


def test_one_bad_review_changes_no_mind() -> None:
    sky = Sky(3)
    sky.pair(2, 0, 9.0)
    sky.pair(2, 1, 9.0)
    sky.pair(0, 1, 1.0)
    sky.review()
    assert sky.states()[2] is Trust.OK
    sky.pair(2, 0, 1.0, tracks=9)
    sky.pair(2, 1, 1.0, tracks=9)
    sky.review(3)
    assert sky.states()[2] is Trust.OK


def test_trust_comes_back_step_by_step_and_only_by_good_evidence() -> None:
    sky = Sky(3)
    for _ in range(2):
        sky.pair(0, 1, 1.0)
        sky.pair(2, 0, 9.0)
        sky.pair(2, 1, 9.0)
        sky.review()
    assert sky.states()[2] is Trust.ISOLATED
    sky.review(100)  # silence is no good behaviour
    assert sky.states()[2] is Trust.ISOLATED
    seen = []
    for _ in range(60):
        sky.pair(0, 1, 1.0)
        sky.pair(2, 0, 1.0)
        sky.pair(2, 1, 1.0)
        sky.review()
        seen.append(sky.states()[2])
    assert seen.index(Trust.SUSPECT) * 30 >= 600 - 60
    assert seen[-1] is Trust.OK
    assert sorted(seen, reverse=True) == seen
    assert sky.keeper.reason(2) == ""


def test_a_verdict_between_the_ratios_stays_what_it_is() -> None:
    for start, kept in ((1.0, Trust.OK), (9.0, Trust.SUSPECT)):
        sky = Sky(1)
        for _ in range(2):
            sky.pair(0, 0, start)
            sky.review()
        for _ in range(60):
            sky.pair(0, 0, 3.0, tracks=9)
            sky.review()
        assert sky.states() == [kept]


def test_right_echoes_from_the_wrong_direction_isolate() -> None:
    sky = Sky(2)
    for _ in range(3):
        for k in range(30):
            sky.keeper.note_astray(1, k % 3)
        sky.keeper.note_support(1, 0, 30)
        sky.keeper.note_support(0, 30, 0)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.ISOLATED]
    assert sky.keeper.reason(1) == REASON_ASTRAY


def test_clutter_is_no_sign_of_a_wrong_direction() -> None:
    sky = Sky(2)
    rng = np.random.default_rng(5)
    for _ in range(100):
        for _ in range(30):
            sky.keeper.note_astray(1, 7 if rng.random() < 0.02 else None)
        sky.keeper.note_support(1, 20, 30)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.OK]


def test_one_that_no_longer_sees_what_others_see_is_suspect_but_not_one_that_never_did() -> None:
    sky = Sky(3)
    for _ in range(20):
        sky.keeper.note_support(0, 50, 5)
        sky.keeper.note_support(1, 50, 5)
        sky.keeper.note_support(2, 0, 50)
        sky.review()
    for _ in range(3):
        sky.keeper.note_support(0, 50, 5)
        sky.keeper.note_support(1, 0, 50)
        sky.keeper.note_support(2, 0, 50)
        sky.review()
    assert sky.states() == [Trust.OK, Trust.SUSPECT, Trust.OK]
    assert sky.keeper.reason(1) == REASON_UNSUPPORTED


def test_healthy_sensors_are_seldom_flagged() -> None:
    """Ratios as of chi-square of three degrees of freedom over eight detections: 2,000 reviews of four sensors."""
    rng = np.random.default_rng(11)
    sky = Sky(4)
    flagged = 0
    for _ in range(2_000):
        for sensor in range(4):
            for before in (sensor, (sensor + 1) % 4):
                for _ in range(2):
                    sky.pair(sensor, before, float(rng.chisquare(24) / 24.0), tracks=1)
        sky.review()
        flagged += sum(s is not Trust.OK for s in sky.states())
    assert flagged == 0


def test_verdicts_outlive_a_run_and_sensors_may_come_and_go() -> None:
    sky = Sky(3)
    for _ in range(2):
        sky.pair(0, 1, 1.0)
        sky.pair(2, 0, 8.0)
        sky.pair(1, 2, 7.0)
        sky.review()
    state = sky.keeper.export_state(("a", "b", "c"))
    other = TrustKeeper(3, CRITERIA)
    other.import_state(("c", "new", "a"), state)
    assert [other.state(s) for s in range(3)] == [Trust.ISOLATED, Trust.OK, Trust.OK]
    assert other.reason(0) == REASON_DISAGREES
