"""A node's side of the stream, in memory: what it sends, what it keeps, what it holds. Losses are the test's."""

from fusionnode.client.decode import Message
from fusionnode.client.following import Stretch
from fusionnode.client.resume import Position
from fusionnode.core import schema


class ModelNode:
    """Streams one after the other; ``keeps``: how many of the newest messages the history holds."""

    def __init__(self, keeps=1000, a_reply=7):
        self.keeps, self.a_reply = keeps, a_reply
        self.runs = []  # (epoch, messages)
        self.restart()

    def restart(self, forgets=False):
        if forgets:
            self.runs = [(epoch, []) for epoch, _ in self.runs]
        self.epoch = f"e{len(self.runs)}"
        self.runs.append((self.epoch, []))
        self.newest, self.counts, self.n = {}, dict.fromkeys(schema.TOPICS, 0), 0

    @property
    def seq(self):
        return self.n

    def _send(self, kind, body):
        self.n += 1
        self.counts[kind] += 1
        message = Message(kind, self.epoch, self.n, body)
        self.runs[-1][1].append(message)
        return message

    def state(self, track):
        message = self._send("state", {"trackId": track, "mark": self.n + 1})
        self.newest[track] = message
        return message

    def end(self, track):
        self.newest.pop(track, None)
        body = {"trackId": track, "reason": "dropped", "epoch": "t", "successor": None}
        return self._send("tombstone", body)

    def beat(self):
        counts = dict(self.counts)
        counts["heartbeat"] += 1
        return self._send("heartbeat", {"nodeId": "a", "time": "t", "tracks": 0, "messages": counts})

    def snapshot(self):
        return Position(self.epoch, self.n), list(self.newest.values())

    def history(self, wanted):
        """A `Stretch` and its messages, or None: not kept."""
        kept = [m for _, run in self.runs for m in run][-self.keeps :]
        at = next((i for i, (epoch, _) in enumerate(self.runs) if epoch == wanted.stream_epoch), None)
        if at is None:
            return None
        epoch, run = self.runs[at]
        newest = run[-1].seq if run else 0
        have = [m for m in run if m in kept and m.seq >= wanted.first]
        if (not have or have[0].seq != wanted.first) and wanted.first != newest + 1:
            return None
        if not run and epoch != self.epoch:
            return None  # forgotten
        found = [m for m in have if wanted.last is None or m.seq <= wanted.last][: self.a_reply]
        last = wanted.first + len(found) - 1
        end = newest if wanted.last is None else min(newest, wanted.last)
        following = self.runs[at + 1][0] if last == newest and at + 1 < len(self.runs) else None
        next_seq = last + 1 if last < end else None
        return Stretch(epoch, wanted.first, last, next_seq, following if next_seq is None else None), found

    def held(self):
        return {track: message.seq for track, message in self.newest.items()}
