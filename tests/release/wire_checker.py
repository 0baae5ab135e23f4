"""Reads what a partner's sockets received, and finds what should not be in it. Nothing of the node is used here.

The checker has a msgpack reader of its own, reads the rules as the operator wrote them (plain dictionaries), and knows
the truth: every state of every track. It is lenient at edges (a state a hair outside of a band may be either), never
about what is plainly outside.
"""

import bisect
import calendar
import math
import re
import struct
import zlib

import erfa
import numpy as np

MU = 3.986004418e14
NS = 1_000_000_000
OPTIONAL = ("uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors", "lastObEnd", "nis", "dof", "updates",
            "existence", "provenance")  # fmt: skip
ALWAYS = ("v", "type", "streamEpoch", "seq", "trackId", "epoch", "referenceFrame", "xpos", "ypos", "zpos", "xvel",
          "yvel", "zvel", "cov", "covReferenceFrame", "status", "classificationMarking", "dataMode", "source",
          "releasableTo")  # fmt: skip
AXES = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
HEARTBEAT = {"v", "type", "streamEpoch", "seq", "nodeId", "group", "time", "tracks", "messages", "intervalS",
             "classificationMarking", "dataMode", "source", "releasableTo"}  # fmt: skip


class Leak(AssertionError):  # noqa: N818 - it is what it says
    """Something a partner was not to have."""


def read(data, at=0):
    """One msgpack value, and where the next one begins (msgpack specification, "Formats"); duplicate keys refused."""

    def number(code, size):
        return struct.unpack_from(">" + code, data, at + 1)[0], at + 1 + size

    def text(size, begins):
        if begins + size > len(data):
            raise ValueError("cut off")
        return data[begins : begins + size], begins + size

    def several(count, begins, *, pairs):
        items = []
        for _ in range(count * (2 if pairs else 1)):
            item, begins = read(data, begins)
            items.append(item)
        if not pairs:
            return items, begins
        out = dict(zip(items[::2], items[1::2], strict=True))
        if len(out) != count:
            raise ValueError("a key twice")
        return out, begins

    b = data[at]
    if b < 0x80:
        return b, at + 1
    if b >= 0xE0:
        return b - 256, at + 1
    if b < 0xA0:
        return several(b & 15, at + 1, pairs=b < 0x90)
    if b < 0xC0:
        raw, at = text(b & 31, at + 1)
        return raw.decode(), at
    if b in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[b], at + 1
    if b in (0xC4, 0xC5, 0xC6):
        size, begins = number("BHI"[b - 0xC4], 1 << (b - 0xC4))
        return text(size, begins)
    if b in (0xCA, 0xCB):
        return number("fd"[b - 0xCA], 4 << (b - 0xCA))
    if 0xCC <= b <= 0xD3:
        return number("BHIQbhiq"[b - 0xCC], 1 << (b - 0xCC & 3))
    if b in (0xD9, 0xDA, 0xDB):
        size, begins = number("BHI"[b - 0xD9], 1 << (b - 0xD9))
        raw, at = text(size, begins)
        return raw.decode(), at
    if b in (0xDC, 0xDD, 0xDE, 0xDF):
        size, begins = number("HI"[b & 1], 4 if b & 1 else 2)
        return several(size, begins, pairs=b >= 0xDE)
    raise ValueError(f"byte {b:#x}")


def values(data):
    """All values of a row of them, each with its own bytes."""
    at, out = 0, []
    while at < len(data):
        value, after = read(data, at)
        out.append((value, data[at:after]))
        at = after
    return out


def utc_ns(text, tai_minus_utc=37):
    """TAI ns of a time's text; years in which ``tai_minus_utc`` holds."""
    found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z", text)
    if found is None:
        raise ValueError(f"not a time: {text!r}")
    *when, micro = map(int, found.groups())
    return (calendar.timegm((*when, 0, 0, 0)) + tai_minus_utc) * NS + micro * 1000


class Truth:
    """One state of a track: what of it could be told."""

    def __init__(self, track, epoch_ns, x, sensors, status, sat_no, name, designator):
        self.track, self.epoch_ns, self.x = track, epoch_ns, np.array(x)
        self.sensors, self.status = tuple(sensors), status
        self.sat_no, self.name, self.designator = sat_no, name, designator


def traits(x, epoch_ns):
    """Inclination (deg), perigee, apogee (km), eccentricity, period over a sidereal day, latitude, longitude."""
    r, v = x[:3], x[3:]
    h = np.cross(r, v)
    a = 1.0 / (2.0 / np.linalg.norm(r) - v @ v / MU)
    e = math.sqrt(max(0.0, 1.0 - h @ h / (MU * a)))
    inclination = math.degrees(math.atan2(math.hypot(h[0], h[1]), h[2]))
    utc = erfa.dtf2d("UTC", 1970, 1, 1, 0, 0, 0.0)
    days = (epoch_ns / NS - 37.0) / 86_400.0
    tai = days + 37.0 / 86_400.0
    earth = erfa.c2t06a(utc[0], utc[1] + tai + 32.184 / 86_400.0, utc[0], utc[1] + days, 0.0, 0.0)
    lon, lat, _ = erfa.gc2gd(1, earth @ r)
    period = 2.0 * math.pi * math.sqrt(a**3 / MU) / 86_164.0905
    return (
        inclination,
        a * (1 - e) / 1e3 - 6378.137,
        a * (1 + e) / 1e3 - 6378.137,
        e,
        period,
        *np.degrees([lat, lon]),
    )


def holds(rule, true, x):
    """What can be said of a rule for a state that is published as ``x``: (perhaps it holds, surely it does)."""
    inclination, perigee, apogee, e, period, lat, lon = traits(x, true.epoch_ns)
    sure, perhaps = True, True

    def plain(condition):
        nonlocal sure, perhaps
        sure, perhaps = sure and condition, perhaps and condition

    def band(value, low, high, slack):
        nonlocal sure, perhaps
        sure = sure and low + slack <= value <= high - slack
        perhaps = perhaps and low - slack <= value <= high + slack

    if "objects" in rule:
        plain(true.sat_no in rule["objects"])
    if "uct" in rule:
        plain(rule["uct"] == (true.sat_no is None))
    if "sensors_only" in rule:
        plain(set(true.sensors) <= set(rule["sensors_only"]))
    if "sensors_none" in rule:
        plain(not set(true.sensors) & set(rule["sensors_none"]))
    if "status" in rule:
        plain(true.status in rule["status"])
    if "regimes" in rule:
        # Slack is not needed: the orbits of the tests lie far from these edges.
        regime = (
            "geo"
            if abs(period - 1) < 0.1 and e < 0.1
            else "heo"
            if e >= 0.25
            else "leo"
            if apogee < 2e3
            else "meo"
        )
        plain(regime in rule["regimes"])
    for key, value, slack in (
        ("inclination_deg", inclination, 1e-6),
        ("perigee_km", perigee, 1e-3),
        ("apogee_km", apogee, 1e-3),
    ):
        if key in rule:
            band(value, *rule[key], slack)
    area = rule.get("area", {})
    if "lat_deg" in area:
        band(lat, *area["lat_deg"], 0.02)
    if "lon_deg" in area:
        west, east = area["lon_deg"]
        width = (east - west) % 360.0
        inside = (lon - west) % 360.0
        sure = sure and 0.02 <= inside <= width - 0.02
        perhaps = perhaps and (inside <= width + 0.02 or inside >= 359.98)
    return perhaps, perhaps and sure


class Checker:
    """What one group's partners receive, against its rules and the truth.

    Args:
        rules: the group's, as written.
        group: its name; releasable_to, marking: its own.
        caveats: by sensor, the list of states that may have what it saw; absent: all.
        truth: (track, epoch_ns) -> `Truth`; may grow.
        sensors: names that ``sensor_status`` has.
    """

    def __init__(self, rules, group, releasable_to, marking, caveats, truth, sensors=()):
        self.rules, self.group, self.truth = rules, group, truth
        self.releasable_to, self.marking = list(releasable_to), marking
        self.barred = {s for s, to in caveats.items() if to is not None and not set(releasable_to) <= set(to)}
        self.sensors = set(sensors)
        self.shown, self.of_track, self.last = {}, {}, {}
        self.seq, self.messages, self.live = 0, {}, {}
        self.granted = []  # (rules that explain it, truth) of each state
        self.raw = bytearray()
        self.releasing = [rule for rule in rules if rule["release"]]

    def under(self, rules, caveats, sensors=()):
        """The same stream under other rules: what was shown is known still, nothing of before may come again."""
        other = Checker(rules, self.group, self.releasable_to, self.marking, caveats, self.truth, sensors)
        other.shown, other.of_track, other.seq = self.shown, self.of_track, self.seq
        other.messages, other.last = self.messages, {}
        return other

    # -- what comes over the live stream

    def take(self, topic, payload, now_ns):
        """One message of the live stream, received while the node's time was ``now_ns``."""
        self.raw += topic + b"\0" + payload
        body, after = read(payload)
        if after != len(payload):
            raise Leak("bytes after the message")
        self._envelope(body, topic)
        self.live[body["seq"]] = (payload, body)
        getattr(self, "_" + body["type"])(body, now_ns)
        return body

    def _envelope(self, body, topic):
        kind = body["type"]
        if kind not in ("state", "tombstone", "event", "sensor", "heartbeat"):
            raise Leak(f"type {kind}")
        self.seq += 1
        if body["seq"] != self.seq:
            raise Leak(f"number {body['seq']} after {self.seq - 1}: numbers count what is not sent")
        if (body["classificationMarking"], body["releasableTo"]) != (self.marking, self.releasable_to):
            raise Leak("markings")
        name = {"state": "trackId", "tombstone": "trackId", "sensor": "sensor"}.get(kind)
        wanted = kind if name is None else f"{kind}.{body[name]}"
        if kind == "event":
            wanted = f"event.{body['event']}.{body['trackId']}"
        if topic.decode() != wanted:
            raise Leak(f"topic {topic!r}")
        self.messages[kind] = self.messages.get(kind, 0) + 1

    def _heartbeat(self, body, now_ns):
        if set(body) != HEARTBEAT:
            raise Leak(f"a heartbeat with {set(body) ^ HEARTBEAT}")
        if body["tracks"] != len(self.shown) or body["group"] != self.group:
            raise Leak(f"a heartbeat tells of {body['tracks']} tracks, {len(self.shown)} are shown")
        counts = {kind: n for kind, n in body["messages"].items() if n}
        if counts != self.messages:
            raise Leak("a heartbeat counts what was not sent")

    def _sensor(self, body, _now_ns):
        if body["sensor"] not in self.sensors:
            raise Leak(f"sensor {body['sensor']}")
        if numbers := [k for k, v in body.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
                       and k not in ("v", "seq")]:  # fmt: skip
            raise Leak(f"counts of a sensor: {numbers}")

    def _tombstone(self, body, _now_ns):
        if self.shown.pop(body["trackId"], None) is None:
            raise Leak("the end of a track that was never shown")
        if body["successor"] is not None and body["successor"] not in self.shown:
            raise Leak("a successor that is not shown")
        if body["reason"] == "merged" and body["successor"] is None:
            raise Leak("merged into something that is not told of")

    def _event(self, body, now_ns):
        for key in ("trackId", "relatedTrackId"):
            if body[key] is not None and body[key] not in self.shown:
                raise Leak(f"an event of a track that is not shown: {key}")
        rules = [r for r in self.releasing if r.get("events")]
        if not any(utc_ns(body["time"]) + r.get("delay_s", 0) * NS <= now_ns for r in rules):
            raise Leak("an event before its time, or events are not released")
        if set(body["sensors"]) & self.barred or body["count"] is not None:
            raise Leak("an event tells of what others saw")

    def _state(self, body, now_ns):
        epoch = utc_ns(body["epoch"])
        x = np.array([body[axis] for axis in AXES]) * 1e3
        near = [true for (_, at), true in self.truth.items() if at == epoch]
        if not near:
            raise Leak("a state that nobody had")
        true = min(near, key=lambda t: float(np.linalg.norm(t.x[:3] - x[:3])))
        if self.of_track.setdefault(body["trackId"], true.track) != true.track:
            raise Leak("one name for two tracks")
        off = float(np.linalg.norm(true.x[:3] - x[:3]))
        if set(true.sensors) & self.barred:
            raise Leak("a state from a sensor whose owner does not allow it")
        # What it is correlated with may have changed while it waited.
        newest = max((t for (n, _), t in self.truth.items() if n == true.track), key=lambda t: t.epoch_ns)
        as_now = Truth(
            true.track,
            epoch,
            true.x,
            true.sensors,
            true.status,
            newest.sat_no,
            newest.name,
            newest.designator,
        )
        faults, explained = [], []
        for index, rule in enumerate(self.rules):
            perhaps, _ = holds(rule, as_now, x)
            if not rule["release"] or not perhaps:
                continue
            precision = rule.get("precision_m", 0.0)
            extra = set(body) - set(ALWAYS) - set(rule.get("fields", OPTIONAL)) - {"sig"}
            before = [
                e
                for e in self.rules[:index]
                if e.get("precision_m", 0.0) == precision and self._same_sight(e, rule)
            ]
            if extra:
                faults.append(f"{sorted(extra)} not in fields")
            elif off < self._least_off(x) * precision:
                faults.append(f"off by {off} m")
            elif epoch + rule.get("delay_s", 0) * NS > now_ns:
                faults.append("too early")
            elif any(holds(e, as_now, x)[1] for e in before):
                faults.append("an earlier rule decides")
            elif (at := self.last.get(body["trackId"])) is not None and epoch - at < rule.get(
                "min_interval_s", 0
            ) * NS:
                faults.append("too often")
            else:
                explained.append(rule)
        if not explained:
            raise Leak(f"no rule releases this state of track {true.track}: {faults}")
        self.granted.append((explained, true, off))
        self.shown[body["trackId"]] = true.track
        self.last[body["trackId"]] = epoch
        if body.get("satNo") not in (None, newest.sat_no, true.sat_no):
            raise Leak("another object's number")
        if not set(body.get("sensors", ())) <= set(true.sensors):
            raise Leak("sensors that did not contribute")

    @staticmethod
    def _least_off(x):
        """Share of a precision that a state must be off by: that is an rms of a revolution over the turning Earth.

        What goes round about as slowly as the Earth turns has parts of its revolution where it hardly moves over it.
        """
        slow = np.linalg.norm(x[:3]) > 3.5e7
        return 0.3 if slow else 0.9

    def _same_sight(self, earlier, rule):
        """Whether an earlier rule is judged by the same published state: a denying one by the group's coarsest."""
        coarsest = max((r.get("precision_m", 0.0) for r in self.releasing), default=0.0)
        seen = earlier.get("precision_m", 0.0) if earlier["release"] else coarsest
        return seen == rule.get("precision_m", 0.0)

    # -- what comes as replies

    def reply(self, frames):
        """A reply to a request: header and parts. Payloads in it must be those of the live stream under these rules."""
        header, after = read(frames[0])
        if after != len(frames[0]):
            raise Leak("bytes after a header")
        self.raw += b"\0".join(frames)
        parts = b"".join(frames[1:])
        if header["type"] == "paced":
            parts = zlib.decompress(header["z"])
            self.raw += b"\0" + parts
        elif header["type"] not in ("snapshot", "history", "hello", "error", "cue_reply"):
            raise Leak(f"a reply of type {header['type']}")
        items = values(parts)
        for value, raw in items:
            if isinstance(value, dict):
                if self.live.get(value["seq"], (None,))[0] != raw:
                    raise Leak(
                        f"a reply holds what was not sent under these rules: {value['type']} {value['seq']}"
                    )
            else:
                self._compact(value)
        return header, [value for value, _ in items]

    def _compact(self, record):
        _, body = self.live.get(record[1], (None, {}))
        if body.get("type") != "state" or body["trackId"] != record[2]:
            raise Leak("a compact record of what was not sent under these rules")
        bits = record[10]
        withheld = {"uct": bits & 2, "idOnOrbit": bits & 8, "lastObEnd": record[15] is None}
        withheld |= {
            key: record[i] is None for key, i in (("updates", 18), ("sensors", 20), ("provenance", 21))
        }
        for key, absent in withheld.items():
            if key not in body and not absent:
                raise Leak(f"{key} in a compact record")
        for key, item in (("satNo", 11), ("name", 13), ("nis", 16), ("dof", 17), ("objectProbability", 14)):
            if body.get(key) is None and record[item] is not None:
                raise Leak(f"{key} in a compact record")
        for axis, steps, grid in zip(AXES, record[6], [record[4]] * 3 + [record[5]] * 3, strict=True):
            if abs(body[axis] - steps * 2.0**grid) > 2.0**grid:
                raise Leak(f"{axis} of a compact record")

    # -- all bytes, whatever they mean

    def search(self, words):
        """No byte string of ``words`` may occur, nor the exact numbers of a state that was not released exactly."""
        raw = bytes(self.raw)
        for word in words:
            if word in raw:
                raise Leak(f"{word!r} in the bytes")
        exact = {
            (t.track, t.epoch_ns)
            for rules, t, _ in self.granted
            if any(not r.get("precision_m") for r in rules)
        }
        secret = sorted(
            abs(value) / 1e3
            for key, true in self.truth.items()
            if key not in exact
            for value in true.x[:3]
            if abs(value) > 1.0
        )
        for packed in sorted(set(re.findall(rb"(?=\xcb(.{8}))", raw, re.DOTALL))):
            value = abs(struct.unpack(">d", packed)[0])
            if not 1.0 < value < 1e6:
                continue
            at = bisect.bisect_left(secret, value * (1.0 - 1e-12))
            if at < len(secret) and secret[at] <= value * (1.0 + 1e-12):
                raise Leak(f"an exact coordinate, {value} km, of a state that is not released")
