"""A small release group's publisher by docs/WIRE.md, in a thread: to be told to lose, to refuse, to restart."""

import queue
import threading
import zlib

import msgpack
import zmq
from zmq.utils import z85

from fusionnode.core import compact
from fusionnode.release.cache import Cache, joined


class StandIn(threading.Thread):
    """``allowed``: public keys let in; ``paced_only``: of these, those refused at the live stream."""

    def __init__(
        self, live, requests, *, server_secret=None, hello=True, features=("history", "paced", "cue")
    ):
        super().__init__(daemon=True)
        self.allowed, self.paced_only = set(), set()
        self.hello, self.features, self.fields = hello, list(features), {}
        self.keeps, self.a_reply = 10_000, 1_000
        self.deaf_to = set()  # types of requests that get no answer
        self.asked = []  # every request, in order
        self.paced_sent = []
        self._orders, self._stop_it = queue.SimpleQueue(), threading.Event()
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._live = self._context.socket(zmq.XPUB)
        self._requests = self._context.socket(zmq.ROUTER)
        for socket, domain, address in ((self._live, b"live", live), (self._requests, b"requests", requests)):
            socket.setsockopt(zmq.LINGER, 0)
            if server_secret is not None:
                socket.curve_server = True
                socket.curve_secretkey = server_secret
                socket.setsockopt(zmq.ZAP_DOMAIN, domain)
            socket.bind(address)
        self._cache = Cache()
        self._history = []  # (epoch, seq, payload)
        self._epochs = []
        self._paced = {}  # request id -> [route, n, topics to send, base, compact]
        self.start()

    def publish(self, messages, lose=False):
        """Send messages; ``lose``: into history and snapshots only."""
        done = threading.Event()
        self._orders.put((messages, lose, done))
        done.wait(5.0)

    def take_over(self, other):
        """Go on with what another one that is closed had kept."""
        self._cache, self._history, self._epochs = other._cache, other._history, other._epochs

    def close(self):
        self._stop_it.set()
        self.join()
        self._context.destroy(linger=0)

    def run(self):
        poller = zmq.Poller()
        for socket in (self._zap, self._live, self._requests):
            poller.register(socket, zmq.POLLIN)
        while not self._stop_it.is_set():
            ready = dict(poller.poll(5))
            if self._zap in ready:
                self._judge()
            if self._live in ready:
                self._live.recv_multipart()
            if self._requests in ready:
                route, *frames = self._requests.recv_multipart()
                self._answer(route, msgpack.unpackb(frames[-1]))
            while not self._orders.empty():
                messages, lose, done = self._orders.get()
                self._publish(messages, lose)
                done.set()
            self._pace()

    def _judge(self):
        version, request, domain, _, _, _, key = self._zap.recv_multipart()
        own = z85.encode(key)
        good = own in self.allowed and not (domain == b"live" and own in self.paced_only)
        self._zap.send_multipart([version, request, b"200" if good else b"400", b"", b"", b""])

    def _publish(self, messages, lose):
        for topic, payload in messages:
            envelope = msgpack.unpackb(payload)
            self._cache.apply(topic, payload)
            if envelope["streamEpoch"] not in self._epochs:
                self._epochs.append(envelope["streamEpoch"])
            self._history.append((envelope["streamEpoch"], envelope["seq"], payload))
            if not lose:
                self._live.send_multipart([topic, payload])
            for one in self._paced.values():
                one[2][topic] = payload

    def _reply(self, route, body, parts=()):
        self._requests.send_multipart([route, msgpack.packb({"v": 1, **body}), *parts])

    def _answer(self, route, request):
        self.asked.append(request)
        kind, request_id = request["type"], request["id"]
        if kind in self.deaf_to:
            return
        if kind == "snapshot_request":
            made = self._cache.snapshot()
            if made is None:
                self._reply(route, {"type": "error", "id": request_id, "reason": "nothing yet"})
            else:
                self._reply(route, {"type": "snapshot", "id": request_id, **made[0]}, made[1])
        elif not self.hello:
            self._reply(route, {"type": "error", "id": request_id, "reason": "unknown type of request"})
        elif kind == "hello_request":
            body = {"versions": [1], "version": 1, "group": "allies", "nodeId": "alpha"}
            body |= {"features": ["snapshot", *self.features], "paced": False, "maxBytesPerS": None}
            self._reply(route, {"type": "hello", "id": request_id, **body, "signingKey": None, **self.fields})
        elif kind == "history_request":
            self._answer_history(route, request)
        elif kind == "paced_request":
            if request_id not in self._paced:
                topics = dict(self._cache.newest)
                resume = request["resume"]
                base = None
                if resume is not None and self._epochs[-1:] == [resume["streamEpoch"]]:
                    base = resume["seq"]
                    topics = {t: p for t, p in topics.items() if msgpack.unpackb(p)["seq"] > base}
                self._paced = {request_id: [route, 0, topics, base, request["compact"]]}
        elif kind == "cue_request":
            for state in ("accepted", "acknowledged"):
                body = {"type": "cue_reply", "id": request_id, "state": state, "reason": ""}
                self._reply(route, body | {"sensor": "north", "time": None})

    def _answer_history(self, route, request):
        epoch, first = request["streamEpoch"], request["from"]
        kept = self._history[-self.keeps :]
        run = {seq: payload for e, seq, payload in kept if e == epoch}
        newest = max((seq for e, seq, _ in self._history if e == epoch), default=0)
        if epoch not in self._epochs or (first not in run and first != newest + 1):
            self._reply(route, {"type": "error", "id": request["id"], "reason": "not_kept"})
            return
        end = newest if request["to"] is None else min(newest, request["to"])
        last = min(end, first + self.a_reply - 1)
        payloads = [run[seq] for seq in range(first, last + 1)]
        at = self._epochs.index(epoch) + 1
        body = {"type": "history", "id": request["id"], "streamEpoch": epoch, "from": first, "to": last}
        body |= {"count": len(payloads), "next": last + 1 if last < end else None, "nextEpoch": None}
        if last == newest and at < len(self._epochs):
            body["nextEpoch"] = self._epochs[at]
        self._reply(route, body, list(joined(payloads)))

    def _pace(self):
        for request_id, one in self._paced.items():
            route, n, topics, base, small = one
            if self._cache.last is None or not topics:
                continue
            batch = [topics.pop(topic) for topic in list(topics)[:20]]
            packed = [(small and compact.pack_state(payload)) or payload for payload in batch]
            one[1] = n + 1
            last = msgpack.unpackb(self._cache.last)
            body = {"n": n + 1, "sentNs": 0, "streamEpoch": last["streamEpoch"], "seq": last["seq"]}
            body |= {"base": base, "whole": not topics, "rttS": 0.25, "z": zlib.compress(b"".join(packed))}
            self.paced_sent.append(body)
            self._reply(route, {"type": "paced", "id": request_id, **body})
