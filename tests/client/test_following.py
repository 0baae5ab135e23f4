"""Gaps, restarts and hours away against a node in memory: what is lost is told, the rest comes in order and once."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_node import ModelNode

from fusionnode.client.events import EpochChange, Filled, Gap, Heartbeat, State, Synced, Tombstone
from fusionnode.client.following import Following, Stretch, Wanted
from fusionnode.client.picture import Picture
from fusionnode.client.resume import Position

OFFERED = True


def follower(since=None, offered=OFFERED, most_held=10_000, prefixes=()):
    picture = Picture(since=since, prefixes=prefixes)
    following = Following(picture, since=since, most_held=most_held, prefixes=prefixes)
    following.offered = offered
    return following


def answer(following, node):
    """One reply to what is wanted, of history or else a snapshot."""
    if following.wanted is not None:
        found = node.history(following.wanted)
        return following.give_up() if found is None else following.history(*found)
    if following.picture.wants_snapshot:
        return following.picture.snapshot(*node.snapshot())
    return []


def settle(following, node):
    events = following.live(node.beat())
    for _ in range(500):
        if following.wanted is None and following.picture.whole:
            return events
        more = answer(following, node)
        if not more and following.wanted is None:
            more = following.live(node.beat())
        events += more
    raise AssertionError(following.wanted)


def whole(node):
    following = follower()
    return following, settle(following, node)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # track
        st.sampled_from(["state", "state", "state", "end", "beat"]),
        st.sampled_from(["sent", "sent", "lost", "late", "twice"]),
        st.sampled_from(["quiet"] * 4 + ["ask", "ask", "deliver", "restart", "restart forgetting", "resume"]),
    ),
    max_size=80,
)


class Teller:
    """Looks at the events that one subscriber after the other was given."""

    def __init__(self):
        self.told, self.epochs = {}, []  # by epoch: sequence numbers told, in order
        self.excused = set()  # (epoch, seq) told to be lost
        self.open_ended = set()  # epochs whose end was lost, as told

    def take(self, events, epoch_before):
        epoch = epoch_before
        for event in events:
            if isinstance(event, EpochChange):
                if not event.complete:
                    self.open_ended.add(event.old)
                    self.open_ended.add(event.new)
                epoch = event.new
            elif isinstance(event, Gap):
                self.excused |= {(epoch, seq) for seq in range(event.seq - event.missed, event.seq)}
            elif isinstance(event, State | Tombstone | Heartbeat):
                if getattr(event, "from_snapshot", False) or getattr(event, "reason", "") == "missed":
                    continue
                self.told.setdefault(epoch, []).append(event.seq)


@settings(deadline=None, max_examples=300)
@given(STEPS, st.sampled_from([1000, 30, 5]), st.sampled_from([1, 7, 100]), st.sampled_from([1000, 3]))
@example([(1, "state", "lost", "quiet"), (2, "state", "sent", "restart")], 1000, 7, 1000)
def test_whatever_is_lost_late_or_cut_the_picture_ends_right_and_every_loss_is_told(
    steps, keeps, a_reply, most_held
):
    node = ModelNode(keeps, a_reply)
    following = follower(most_held=most_held)
    teller = Teller()
    first = {}
    lives, late, reply = Counter(), None, None

    def take(act, *given):
        epoch = following.picture.stream_epoch
        events = act(*given)
        if epoch is None:
            epoch = following.picture.stream_epoch
            first.setdefault("at", (epoch, following.picture.seq))
        teller.take(events, epoch)

    take(settle, following, node)
    for track, what, way, then in steps:
        name = f"a-{track}-{lives[track]}"
        lives[track] += what == "end"
        message = node.beat() if what == "beat" else getattr(node, what)(name)
        arriving = {"lost": [], "late": [late], "twice": [message] * 2}.get(way, [message])
        late = message if way == "late" else late
        for one in arriving:
            if one is not None and one.stream_epoch == node.epoch:
                take(following.live, one)
        if then == "ask" and reply is None:
            wanted = following.wanted
            if wanted is not None:
                reply = (wanted, node.history(wanted))
            elif following.picture.wants_snapshot:
                reply = (None, node.snapshot())
        elif then == "deliver" and reply is not None:
            wanted, found = reply
            reply = None
            if wanted is None:
                take(following.picture.snapshot, *found)
            elif following.wanted is not None and following.wanted[:2] == wanted[:2]:
                if found is None:
                    take(following.give_up)
                else:
                    take(following.history, *found)
        elif then.startswith("restart"):
            node.restart(forgets=then.endswith("forgetting"))
            late = reply = None
        elif then == "resume" and following.picture.position is not None:
            # The subscriber ends, having dealt with all; another one goes on.
            following = follower(following.picture.position, most_held=most_held)
            reply = None
    take(settle, following, node)
    held = {name: body["mark"] for name, body in following.picture.states.items()}
    assert (following.picture.stream_epoch, held) == (node.epoch, node.held())
    for epoch, seqs in teller.told.items():
        assert seqs == sorted(set(seqs)), "twice, or out of order"
        if epoch in teller.open_ended:
            continue
        begin = first["at"][1] if epoch == first["at"][0] else 1
        sent = next(run for e, run in node.runs if e == epoch)
        end = sent[-1].seq if sent else seqs[-1]
        missing = set(range(begin, end + 1)) - set(seqs) - {s for e, s in teller.excused if e == epoch}
        assert not missing, "lost, and not told"


def test_a_gap_is_filled_in_order_and_the_picture_never_unwhole():
    node = ModelNode()
    following, _ = whole(node)
    lost = [node.state("a"), node.state("b")]
    assert following.live(node.state("c")) == []
    assert following.wanted == Wanted("e0", lost[0].seq, lost[1].seq)
    events = answer(following, node)
    assert [type(e) for e in events] == [Filled, State, State, State]
    assert [e.seq for e in events[1:]] == [2, 3, 4]
    assert following.wanted is None
    assert following.picture.whole


def test_hours_later_another_subscriber_goes_on_where_the_last_one_stood():
    node = ModelNode()
    node.state("a")
    node.state("b")
    before, _ = whole(node)
    at = before.picture.position
    for _ in range(20):
        node.state("a")
    node.end("b")
    node.restart()
    node.state("a")
    after = follower(at)
    events = settle(after, node)
    assert Gap not in [type(e) for e in events]
    assert EpochChange("e0", "e1", complete=True) in events
    assert [(e.seq) for e in events if isinstance(e, State)] == [*range(at.seq + 1, at.seq + 21), 1]
    assert set(after.picture.states) == {"a"}
    assert after.picture.position == Position("e1", node.seq)


def test_after_hours_in_one_stream_the_picture_is_made_whole_without_telling_anything_again():
    node = ModelNode()
    for name in "abc":
        node.state(name)
    before, _ = whole(node)
    at = before.picture.position
    node.state("b")
    after = follower(at)
    events = settle(after, node)
    assert [e.state["trackId"] for e in events if isinstance(e, State)] == ["b"]
    assert set(after.picture.states) == {"a", "b", "c"}
    assert Synced("e0", node.seq, 3) in events


def test_history_that_is_not_kept_is_a_gap_and_a_snapshot():
    node = ModelNode(keeps=3)
    node.state("a")
    before, _ = whole(node)
    at = before.picture.position
    for _ in range(10):
        node.state("b")
    events = settle(follower(at), node)
    assert [e.missed for e in events if isinstance(e, Gap)] == [10]
    states = [e for e in events if isinstance(e, State)]
    assert {e.state["trackId"] for e in states} == {"a", "b"}, (
        "what had been told is told again: something is lost"
    )


@pytest.mark.parametrize(
    "change",
    [{"stream_epoch": "x"}, {"first": 3}, {"last": 9}, {"next": 2}, {"next": None, "next_epoch": "e0"}],
    ids=str,
)
def test_a_history_that_is_not_what_was_asked_for_is_not_taken(change):
    node = ModelNode()
    following, _ = whole(node)
    node.state("a")
    following.live(node.state("b"))
    stretch, messages = node.history(following.wanted)
    events = following.history(stretch._replace(**change), messages)
    assert [type(e) for e in events] == [Gap, State]


def test_a_node_that_never_comes_to_an_end_is_not_asked_for_ever():
    node = ModelNode()
    following, _ = whole(node)
    node.state("a")
    following.live(node.state("b"))
    assert following.history(Stretch("e0", 2, 1, 2, None), []) != []
    assert following.wanted is None


def test_with_a_filter_hours_away_are_made_up_for_and_a_gap_is_told_by_a_heartbeat():
    node = ModelNode()
    prefixes = (b"state.a", b"tombstone.", b"heartbeat")
    following = follower(prefixes=prefixes)
    settle(following, node)
    at = following.picture.position
    node.state("a")
    node.state("b")
    node.beat()
    after = follower(at, prefixes=prefixes)
    events = settle(after, node)
    assert [e.state["trackId"] for e in events if isinstance(e, State)] == ["a"]
    assert Gap not in [type(e) for e in events]


@pytest.mark.parametrize("offered", [True, False])
def test_what_was_sent_between_a_first_snapshot_and_the_first_live_message_is_filled_or_told(offered):
    node = ModelNode()
    following = follower(offered=offered)
    node.state("a")
    following.picture.snapshot(*node.snapshot())
    assert following.picture.position == (node.epoch, 1)
    for track in ("b", "c", "a"):
        node.state(track)
    events = following.live(node.beat())
    if offered:
        assert (events, following.wanted) == ([], Wanted(node.epoch, 2, 4))
        filled, *rest = answer(following, node)
        assert filled == Filled(node.epoch, 2, 4)
        assert [event.seq for event in rest] == [2, 3, 4, 5]
    else:
        assert events[0] == Gap(5, 3)
        assert following.picture.wants_snapshot
