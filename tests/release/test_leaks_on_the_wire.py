"""Two groups behind real sockets, random policies and skies, one reload after the other: a checker reads the bytes.

Two partners a group: one on the live stream, one that is paced only. After each policy both ask for everything that a
request can ask for. What they received goes to `wire_checker`, which knows nothing of the node's code.
"""

import random
import socket
import time

import msgpack
import numpy as np
import pytest
import zmq
from test_group_stream import NS, T0_NS, Bench, state, station
from wire_checker import OPTIONAL, Checker, Leak, Truth, read

from fusionnode.config import parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import KnownObject, ObjectEvent, Status, Tombstone
from fusionnode.release.groups import Groups
from fusionnode.release.outlets import Outlets
from fusionnode.security.keyring import OFFSET, Keyring, Pair, server_name
from fusionnode.security.zap import unlock

SENSORS = ("north", "south", "islander", "hillside")
STATUS = ("tentative", "confirmed", "coasting")
TICKS = 6
MARKS = {"gold": (["GBR", "FRA"], "R"), "iron": (["ESP"], "U")}


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
        if isinstance(value, str)
        else str(value)
    )


def random_rule(rng, numbers):
    rule = {"release": rng.random() < 0.75}
    chances = {
        "objects": lambda: rng.sample(numbers, min(len(numbers), 2)),
        "uct": lambda: rng.random() < 0.5,
        "regimes": lambda: rng.sample(["leo", "meo", "geo", "heo"], 2),
        "inclination_deg": lambda: rng.choice([[0.0, 55.0], [45.0, 90.0], [70.0, 180.0]]),
        "perigee_km": lambda: rng.choice([[0.0, 800.0], [700.0, 3_000.0]]),
        "apogee_km": lambda: rng.choice([[0.0, 900.0], [600.0, 40_000.0]]),
        "area": lambda: rng.choice(
            [{"lat_deg": [0.0, 90.0]}, {"lon_deg": [100.0, 20.0]}, {"lon_deg": [-60.0, 120.0]}]
        ),
        "sensors_only": lambda: rng.sample(SENSORS, 2),
        "sensors_none": lambda: rng.sample(SENSORS, 1),
        "status": lambda: rng.sample(STATUS, 2),
    }
    effects = {
        "fields": lambda: rng.sample(OPTIONAL, 4),
        "precision_m": lambda: rng.choice([100.0, 2_000.0]),
        "delay_s": lambda: rng.choice([1.0, 3.0]),
        "min_interval_s": lambda: 2.0,
        "events": lambda: True,
    }
    for chance, kinds in ((0.12, chances), (0.35, effects)):
        for key, make in kinds.items():
            if rng.random() < chance:
                rule[key] = make()
    return rule


class Catalogue:
    def __init__(self, objects):
        self.sat_no = np.array([one.sat_no for one in objects])


class Stage:
    """A node's groups, their publishers, and partners; ``play`` one policy after the other."""

    def __init__(self, folder, orientation):
        self.folder = folder
        self.keys = Keyring(folder / "keys")
        self.keys.new(OFFSET)
        self.ports = [self._port() for _ in range(4)]
        self.context, self.sockets = zmq.Context(), {}
        rng = random.Random(1)
        numbers = rng.sample(range(100_000_000, 999_999_999), 4_000)
        self.objects = [
            KnownObject(n, f"OBJECT {rng.randrange(1 << 60):x}", f"{1957 + n % 70}-{n % 1000:03d}{n:x}")
            for n in numbers
        ]
        self.public, self.pairs = {}, {}
        for group in MARKS:
            self.public[group] = self.keys.new(server_name(group))
            for partner in ("live", "paced"):
                pair = self.pairs[group, partner] = Pair(*zmq.curve_keypair())
                (folder / "one.public").write_bytes(pair.public + b"\n")
                self.keys.allow(group, f"{group}-{partner}", folder / "one.public")
        self.rules = {group: [] for group in MARKS}
        self.caveats, self.status = {}, {group: [] for group in MARKS}
        self.outcomes, self.faults = Outcomes(), []
        config = self.config()
        self.outlets = Outlets(config, lambda *told: self.faults.append(told))
        self.outlets.start()
        self.groups = Groups(
            config, orientation, Catalogue(self.objects), lambda row: self.objects[row], self.outcomes,
            stream_epoch="alpha-1", key=self.keys.offset_secret(),
        )  # fmt: skip
        self.now, self.tracks, self.truth = T0_NS, 0, {}
        self.checkers = {g: Checker([], g, to, marking, {}, self.truth) for g, (to, marking) in MARKS.items()}
        for group in MARKS:
            self.sockets[group, "live"] = self.open(zmq.SUB, group, "live")
            self.sockets[group, "ask"] = self.open(zmq.DEALER, group, "live")
            self.sockets[group, "paced"] = self.open(zmq.DEALER, group, "paced")
        self.request_id = 0
        self._join()

    @staticmethod
    def _port():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def address(self, group, kind):
        return f"tcp://127.0.0.1:{self.ports[2 * list(MARKS).index(group) + (kind != zmq.SUB)]}"

    def open(self, kind, group, partner, at=None, server=None):
        """A partner's socket; ``at``: at another group's address."""
        one = self.context.socket(kind)
        one.setsockopt(zmq.LINGER, 0)
        unlock(one, self.public[server or group], self.pairs[group, partner])
        one.connect(self.address(at or group, kind))
        if kind == zmq.SUB:
            one.subscribe(b"")
        return one

    def config(self):
        text = '[node]\nid = "alpha"\n[site.here]\nlat_deg = 40.0\nlon_deg = -3.0\n[publish]\nheartbeat_s = 1.0\n'
        for n, name in enumerate(SENSORS, 1):
            text += f'[sensor.{name}]\nid = {n}\nkind = "radar"\nsite = "here"\n'
            if (to := self.caveats.get(name)) is not None:
                text += f"releasable_to = {toml(to)}\n"
        text += f'[release]\nkeys_directory = "{self.folder}/keys"\naudit_directory = "{self.folder}/audit"\n'
        for group, (to, marking) in MARKS.items():
            text += f'[partner.{group}-live]\ngroup = "{group}"\n'
            text += f'[partner.{group}-paced]\ngroup = "{group}"\npaced_bytes_per_s = 400000\n'
            text += f'[group.{group}]\nendpoint = "{self.address(group, zmq.SUB)}"\n'
            text += f'request_endpoint = "{self.address(group, zmq.DEALER)}"\n'
            text += f'classification_marking = "{marking}"\nreleasable_to = {toml(to)}\n'
            text += f"sensor_status = {toml(self.status[group])}\n"
            for i, rule in enumerate(self.rules[group]):
                text += f'[[group.{group}.rule]]\nname = "r{i}"\n'
                text += "".join(f"{key} = {toml(value)}\n" for key, value in rule.items())
        return parse(text, self.folder / "alpha.toml")

    def tick(self, seconds=1):
        self.now += seconds * NS
        self.groups.turn(
            self.now, lambda: {s: {"alive": True, "detections": 99, "rateHz": 2.5} for s in SENSORS}
        )
        self.outlets.send(self.groups.streams)

    def stream(self, group):
        return next(stream for stream in self.groups.streams if stream.name == group)

    def take(self, group):
        """Everything up to now."""
        sub, checker = self.sockets[group, "live"], self.checkers[group]
        while checker.seq < self.stream(group).encoder.seq:
            assert sub.poll(10_000), "the stream has stopped"
            checker.take(*sub.recv_multipart(), self.now)

    def _join(self):
        """Heartbeats, until each group's stream is there."""
        for group in self.checkers:
            newest = None
            while newest != self.stream(group).encoder.seq:
                self.tick()
                while self.sockets[group, "live"].poll(100):
                    newest = read(self.sockets[group, "live"].recv_multipart()[1])[0]["seq"]
        for group, checker in self.checkers.items():
            while self.sockets[group, "live"].poll(100):
                self.sockets[group, "live"].recv_multipart()
            checker.seq = self.stream(group).encoder.seq
            checker.messages["heartbeat"] = checker.seq

    def play(self, seed):
        """Other rules, a few tracks, and then the questions."""
        rng = random.Random(seed)
        fresh = []
        for _ in range(rng.randrange(2, 7)):
            self.tracks += 1
            known = 2 * self.tracks if rng.random() < 0.6 else -1
            orbit = {
                "height_km": rng.choice([400.0, 750.0, 20_200.0, 35_786.0]) + rng.random(),
                "inclination_deg": rng.choice([0.1, 50.0, 56.0, 98.0]) + rng.random(),
                "u_deg": rng.random() * 360.0,
            }
            fresh.append([self.tracks, known, rng.randrange(1, 16), rng.randrange(3), orbit])
        numbers = [self.objects[known].sat_no for _, known, *_ in fresh if known >= 0] or [7]
        self.caveats = {
            s: rng.choice([None, None, ["GBR"], ["FRA", "GBR"], ["ESP"], ["ESP", "FRA", "GBR"], []])
            for s in SENSORS
        }
        self.rules = {g: [random_rule(rng, numbers) for _ in range(rng.randrange(5))] for g in MARKS}
        self.status = {g: rng.sample(SENSORS, rng.choice([0, 0, 1])) for g in MARKS}
        config = self.config()
        prepared = self.outlets.prepare(config)
        self.groups.reload(config, self.now)
        self.outlets.reload(prepared)
        for g in MARKS:
            self.checkers[g] = self.checkers[g].under(self.rules[g], self.caveats, self.status[g])
        changed = rng.choice(fresh)
        for k in range(TICKS):
            rows = []
            for one in fresh:
                track, known, sensors, status, orbit = one
                if one is changed and k == TICKS // 2:
                    known = one[1] = 2 * track + 1 if known < 0 else -1
                if k == TICKS // 2 and rng.random() < 0.3:
                    sensors = one[2] = rng.randrange(1, 16)
                row = state(track, (self.now - T0_NS) / NS, known, sensors, **orbit)
                row["status"] = Status(status)
                rows.append(row)
                self._remember(row[0])
            self.groups.states(np.concatenate(rows), self.now)
            for _ in range(2):
                a, b = rng.sample(fresh, 2)
                related = rng.choice([None, b[0]])
                event = ObjectEvent(
                    rng.choice(["breakup", "manoeuvre", "new_object_near"]), a[0], self.now, related=related, count=9,
                    sensors=a[2], object=a[1],
                )  # fmt: skip
                self.groups.event(event, self.now)
            if k == TICKS - 2:
                a, b = rng.sample(fresh, 2)
                self.groups.end(Tombstone(a[0], self.now, rng.choice(["merged", "dropped"]), b[0]), self.now)
                fresh.remove(a)
            self.tick()
            for group in MARKS:
                self.take(group)
            if len(fresh) < 2:
                break
        for group in MARKS:
            self.interrogate(group, rng)
        for group, checker in self.checkers.items():
            other = next(c for g, c in self.checkers.items() if g != group)
            checker.search([*self.secrets(checker), *(name.encode() for name in other.of_track)])
        for one in fresh:
            if rng.random() < 0.8:
                self.groups.end(Tombstone(one[0], self.now, "dropped"), self.now)

    def _remember(self, row):
        known = int(row["object"])
        names = [s for i, s in enumerate(SENSORS) if int(row["sensors"]) >> i & 1]
        what = self.objects[known] if known >= 0 else None
        about = (
            (None, None, None) if what is None else (what.sat_no, what.name, what.international_designator)
        )
        key = int(row["track"]), int(row["epoch_ns"])
        self.truth[key] = Truth(*key, row["x"], names, STATUS[row["status"]], *about)

    def interrogate(self, group, rng):
        """Ask for all there is, and for what there should not be."""
        checker, ask, paced = self.checkers[group], self.sockets[group, "ask"], self.sockets[group, "paced"]
        seq = checker.seq
        questions = [
            ("hello_request", {"versions": [1], "client": "x"}),
            ("snapshot_request", {}),
            ("history_request", {"streamEpoch": "alpha-1", "from": 1, "to": None}),
            (
                "history_request",
                {"streamEpoch": "alpha-1", "from": max(1, min(checker.live, default=1)), "to": None},
            ),
            ("history_request", {"streamEpoch": "alpha-1", "from": rng.randrange(1, seq + 1), "to": seq + 9}),
            ("history_request", {"streamEpoch": "", "from": 1, "to": None}),
            (
                "cue_request",
                {"trackId": "alpha-000001", "fromUtc": "2026-03-01T12:00:00.000000Z", "toUtc": "x"},
            ),
        ]
        for kind, fields in questions:
            for _ in range(20):  # who asks too often is not answered for a while
                self.request_id += 1
                ask.send(packed({"v": 1, "type": kind, "id": self.request_id} | fields))
                if ask.poll(500):
                    break
            checker.reply(ask.recv_multipart(zmq.NOBLOCK))
        for compact in (True, False):
            self.request_id += 1
            resume = rng.choice([None, {"streamEpoch": "alpha-1", "seq": rng.randrange(1, seq + 1)}])
            fields = {"bytesPerS": 1 << 30, "compact": compact, "resume": resume}
            paced.send(packed({"v": 1, "type": "paced_request", "id": self.request_id} | fields))
            whole = False
            while not whole:
                assert paced.poll(10_000), "no paced message"
                header, _ = checker.reply(paced.recv_multipart())
                whole = header["id"] == self.request_id and header.get("whole")
                if header["type"] == "paced":
                    paced.send(packed({"v": 1, "type": "paced_ack", "id": header["id"], "n": header["n"]}))

    def secrets(self, checker):
        """Byte strings that this group may not see at all."""
        may = {}
        for rules, true, _ in checker.granted:
            fields = [f for rule in rules for f in rule.get("fields", OPTIONAL)]
            may.setdefault(true.track, dict.fromkeys(fields)).update(dict.fromkeys(fields))
        seen_sensors = dict.fromkeys(checker.sensors)
        for (track, _), true in self.truth.items():
            if "sensors" in may.get(track, ()):
                seen_sensors.update(dict.fromkeys(s for s in true.sensors if s not in checker.barred))
        words = [s.encode() for s in SENSORS if s not in seen_sensors]
        for track in range(1, self.tracks + 1):
            words.append(b"alpha-%06d" % track)
            for known in (2 * track, 2 * track + 1):
                what, fields = self.objects[known], may.get(track, ())
                for field, word in (
                    ("satNo", b"\xce" + what.sat_no.to_bytes(4)),
                    ("name", what.name.encode()),
                    ("idOnOrbit", what.international_designator.encode()),
                ):
                    if field not in fields:
                        words.append(word)
        return words

    def close(self):
        for one in self.sockets.values():
            one.close()
        self.context.destroy(linger=0)
        self.outlets.close()


def packed(value):
    """A request, by hand."""
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(packed(k) + packed(v) for k, v in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    if isinstance(value, str):
        return b"\xd9" + bytes([len(value)]) + value.encode()
    if isinstance(value, bool) or value is None:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    return b"\xcf" + value.to_bytes(8)


@pytest.fixture
def stage(tmp_path, orientation):
    stage = Stage(tmp_path, orientation)
    yield stage
    stage.close()


def test_nothing_outside_of_the_policy_reaches_a_partners_sockets(stage):
    nobody = zmq.curve_keypair()
    stage.pairs["gold", "stranger"] = Pair(*nobody)
    strangers = [
        stage.open(kind, "gold", who, at, server)
        for kind in (zmq.SUB, zmq.DEALER)
        for who, at, server in (
            ("live", "iron", "iron"),
            ("live", "iron", "gold"),
            ("stranger", "gold", "gold"),
        )
    ]
    strangers.append(stage.open(zmq.SUB, "gold", "paced"))
    for kind in (zmq.SUB, zmq.DEALER):
        bare = stage.context.socket(kind)
        bare.connect(stage.address("gold", kind))
        if kind == zmq.SUB:
            bare.subscribe(b"")
        strangers.append(bare)
    for one in strangers:
        if one.type == zmq.DEALER:
            one.setsockopt(zmq.LINGER, 0)
            one.send(packed({"v": 1, "type": "snapshot_request", "id": 1}), zmq.NOBLOCK)
    try:
        for seed in range(25):
            try:
                stage.play(seed)
            except Leak as leak:
                raise AssertionError(f"seed {seed}: {leak}; rules {stage.rules}") from leak
        time.sleep(0.2)
        assert [one for one in strangers if one.poll(0)] == []
    finally:
        for one in strangers:
            one.close(linger=0)
    assert stage.faults == []
    assert sum(len(c.of_track) for c in stage.checkers.values()) > 25  # much was released,
    assert stage.outcomes.of("group:gold")["not_released"] > 100  # and much was not


RELEASED = {"release": True, "events": True}


@pytest.mark.parametrize(
    ("rules", "more"),
    [
        ([], {}),
        ([RELEASED | {"release": False}], {}),
        ([RELEASED | {"fields": ["uct"]}], {}),
        ([RELEASED | {"precision_m": 100.0}], {}),
        ([RELEASED | {"delay_s": 2.0}], {}),
        ([RELEASED | {"min_interval_s": 2.0}], {}),
        ([RELEASED | {"events": False}], {}),
        ([RELEASED | {"objects": [7]}], {}),
        ([RELEASED | {"uct": True}], {}),
        ([RELEASED | {"regimes": ["geo"]}], {}),
        ([RELEASED | {"inclination_deg": [70.0, 80.0]}], {}),
        ([RELEASED | {"perigee_km": [0.0, 500.0]}], {}),
        ([RELEASED | {"area": {"lat_deg": [-90.0, -20.0]}}], {}),
        ([RELEASED | {"sensors_only": ["south"]}], {}),
        ([RELEASED | {"status": ["tentative"]}], {}),
        ([{"release": False, "sensors_none": ["south"]}, RELEASED], {}),
        ([RELEASED], {"caveats": {"north": ["GBR"]}}),
        ([RELEASED], {"marking": "U"}),
        ([RELEASED], {"releasable_to": ["GBR"]}),
        ([RELEASED], {"sensors": []}),
        ([RELEASED], {"words": [b"ISS (ZARYA)"]}),
        ([RELEASED], {"words": [b"\xcd\x63\xc8"]}),
        ([RELEASED], {}),
    ],
)
def test_the_checker_finds_each_kind_of_leak(rules, more, orientation):
    """A group that is given everything, and a checker that thinks otherwise; only the last case is in order."""
    lax = '[[group.g.rule]]\nname = "r"\nevents = true\n'
    bench = Bench(orientation, station(lax, group='sensor_status = ["north"]'))
    truth = {}
    fields = {"releasable_to": ["GBR", "FRA"], "marking": "R", "caveats": {}, "sensors": ["north"]} | more
    words = fields.pop("words", [])
    checker = Checker(rules, "g", truth=truth, **fields)

    def everything():
        for second in range(3):
            row = state(1, second, 0)
            truth[1, int(row["epoch_ns"][0])] = Truth(
                1,
                int(row["epoch_ns"][0]),
                row["x"][0],
                ["north"],
                "confirmed",
                25544,
                "ISS (ZARYA)",
                "1998-067A",
            )
            bench.groups.states(row, T0_NS + second * NS)
            bench.groups.event(
                ObjectEvent("manoeuvre", 1, T0_NS + second * NS, sensors=1), T0_NS + second * NS
            )
            bench.groups.turn(T0_NS + second * NS, lambda: {"north": {"alive": True}})
            for topic, payload in bench.stream.take().messages:
                checker.take(topic, payload, T0_NS + second * NS)
        checker.search(words)

    if rules == [RELEASED] and not more:
        everything()
        assert checker.seq > 6
        return
    with pytest.raises(Leak):
        everything()


def test_the_checker_finds_exact_numbers_and_what_was_not_sent_live():
    x = np.array([7_123_456.789, 1_234_567.891, -456_789.123, 1.0, 7_500.0, 2.0])
    checker = Checker(
        [], "g", ["GBR"], "R", {}, {(1, 0): Truth(1, 0, x, ["north"], "confirmed", None, None, None)}
    )
    header = msgpack.packb({"v": 1, "type": "snapshot", "id": 1, "streamEpoch": "e", "seq": 1, "count": 1})
    with pytest.raises(Leak, match="not sent under these rules"):
        checker.reply([header, msgpack.packb({"type": "state", "seq": 1})])
    checker.raw.clear()
    checker.reply([msgpack.packb({"v": 1, "type": "hello", "id": 1, "x": 1.5})])
    checker.search([])
    checker.reply([msgpack.packb({"v": 1, "type": "hello", "id": 1, "x": x[1] / 1e3})])
    with pytest.raises(Leak, match="exact coordinate"):
        checker.search([])


def test_what_a_precision_empties_is_not_there_if_it_is_withheld(orientation):
    for given in (["nis"], ["dof"], []):
        rule = f'[[group.g.rule]]\nname = "r"\nprecision_m = 100.0\nfields = {toml(given)}\n'
        body = Bench(orientation, station(rule)).at(1.0, state(1))[0]
        assert [key for key in ("nis", "dof") if key in body] == given


def test_a_state_that_is_held_is_judged_by_its_own_object_not_by_the_one_before(orientation):
    rules = '[[group.g.rule]]\nname = "uct"\nuct = true\nmin_interval_s = 2.0\n'
    rules += '[[group.g.rule]]\nname = "known"\nuct = false\n'
    bench = Bench(orientation, station(rules))
    assert bench.at(1.0, state(1, 1.0, 0))[0]["satNo"] == 25544
    assert bench.at(2.0, state(1, 2.0)) == []
    assert bench.at(3.0) == []
    assert [(body["uct"], body["satNo"]) for body in bench.at(3.5, state(1, 3.5))] == [(True, None)]
