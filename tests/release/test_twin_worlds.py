"""Two skies that differ only in what a group is not released: the group's bytes are the same to the last one.

This holds everything at once: counts, sequence numbers, names of tracks, who succeeds whom, events, tombstones, the
times of heartbeats, and what a reload sends again. Only what a track itself shows may differ.
"""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_group_stream import NS, T0_NS, Bench, state, station

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import ObjectEvent, Status, Tombstone

ORIENTATION = EarthOrientation()
SECONDS = 12
# The hidden are the objects of the first rule, what south saw (its owner keeps it), and what is not in low orbit.
RULES = """
[[group.g.rule]]
name = "hidden"
release = false
objects = [43437]
[[group.g.rule]]
name = "shown"
regimes = ["leo"]
events = true
"""
MORE = (
    "",
    "delay_s = 2.0\n",
    "min_interval_s = 3.0\n",
    "precision_m = 300.0\n",
    'fields = ["uct", "sensors"]\n',
    "precision_m = 100.0\ndelay_s = 3.0\nmin_interval_s = 2.0\n",
)
SOUTH = "releasable_to = []"


def shown_sky(seed):
    """What is released: (second, what, arguments), in order."""
    rng = random.Random(seed)
    script = []
    for track in range(1, 5):
        ends = rng.randrange(4, SECONDS)
        for second in range(rng.randrange(3), ends):
            row = state(
                track, second, rng.choice([-1, 0]), 1, height_km=600.0 + 100 * track, u_deg=80.0 * track
            )
            row["status"] = Status(rng.randrange(3))
            script.append((second, "state", row))
            if rng.random() < 0.3:
                event = ObjectEvent("manoeuvre", track, T0_NS + second * NS, sensors=1)
                script.append((second, "event", event))
        script.append((ends, "end", (track, "dropped", None)))
    return script


def hidden_sky(seed):
    """What is not: by its object, its orbit or its sensor; and its events and ends, which name what is shown too."""
    rng = random.Random(seed)
    script = []
    for track in range(101, 101 + rng.randrange(6)):
        why = rng.choice(["object", "orbit", "sensor"])
        known, sensors = (1 if why == "object" else -1), (rng.choice([2, 3]) if why == "sensor" else 1)
        height = rng.choice([1_200.0, 20_200.0] if why != "orbit" else [20_200.0, 35_786.0])
        first, ends = rng.randrange(5), rng.randrange(5, SECONDS)
        for second in range(first, ends):
            row = state(track, second, known, sensors, height_km=height, u_deg=rng.random() * 360)
            if why != "orbit" and rng.random() < 0.1:
                row["x"] = np.nan
            script.append((second, "state", row))
            related = rng.choice([None, 1, 2, track + 1])
            at = T0_NS + second * NS
            script.append(
                (second, "event", ObjectEvent("breakup", track, at, related=related, count=3, sensors=3))
            )
            told = ObjectEvent("new_object_near", rng.choice([1, 2, 3]), at, related=track, sensors=1)
            script.append((second, "event", told))
            script.append((second, "event", ObjectEvent("manoeuvre", rng.choice([1, 2]), at, sensors=3)))
        script.append((ends, "end", (track, "merged", rng.choice([1, 2, 3]))))
    return script


def heard(rules, shown, hidden, reload_at, reloaded, successors):
    """Everything the group is sent, and the number of messages by second."""
    bench = Bench(ORIENTATION, station(rules, sensor=SOUTH, group='sensor_status = ["north"]'))
    out, counts = [], []
    for second in range(SECONDS + 6):
        now = T0_NS + second * NS
        for at, what, args in hidden + shown:  # in another order with each sky
            if at != second:
                continue
            if what == "state":
                bench.groups.states(args, now)
            elif what == "event":
                bench.groups.event(args, now)
            else:
                track, reason, successor = args
                if track in successors:
                    reason, successor = "merged", successors[track]
                bench.groups.end(Tombstone(track, now, reason, successor), now)
        bench.groups.turn(
            now, lambda: {"north": {"alive": True, "detections": len(hidden), "rateHz": len(hidden)}}
        )
        if second == reload_at:
            bench.groups.reload(station(reloaded, sensor=SOUTH, group='sensor_status = ["north"]'), now)
        taken = bench.stream.take()
        out += [b"|".join(message) for message in taken.messages]
        out += [repr(grant).encode() for grant in taken.grants]
        counts.append(len(taken.messages))
    bench.groups.stop(T0_NS + 30 * NS)
    out += [b"|".join(message) for message in bench.stream.take().messages]
    return out, counts


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 1 << 30)),
    rules=st.tuples(st.sampled_from(MORE), st.sampled_from(MORE)),
    reload_at=st.integers(2, 2 * SECONDS),
)
def test_what_is_not_released_changes_not_one_byte(seeds, rules, reload_at):
    shown = shown_sky(seeds[0])
    before, after = (RULES + more for more in rules)
    # In the second sky one that is shown goes on in one that is hidden: it must look like an end.
    first = heard(before, shown, hidden_sky(seeds[1]), reload_at, after, {})
    second = heard(before, shown, hidden_sky(seeds[2]), reload_at, after, {2: 101})
    assert first == second
    assert first == heard(before, shown, [], reload_at, after, {})
    assert len(first[0]) > SECONDS


@pytest.mark.parametrize("track", [1, 3])
def test_another_state_of_what_is_shown_does_change_them(track):
    """That the comparison would see something."""
    shown = shown_sky(5)
    other = [(at, what, args.copy() if what == "state" else args) for at, what, args in shown]
    for _, what, args in other:
        if what == "state" and args["track"][0] == track:
            args["x"] *= 1.0 + 1e-12
    assert heard(RULES, shown, [], 99, RULES, {}) != heard(RULES, other, [], 99, RULES, {})
