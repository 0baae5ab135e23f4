"""Random policies, tracks and partners: nothing outside of the policy is in a group's bytes, by a checker of its own.

The checker knows the truth (the exact states, and which track a message was of) and reads the configuration's text,
not the node's compiled rules.
"""

from __future__ import annotations

from typing import Any

import erfa
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_group_stream import NS, OBJECTS, T0_NS, Bench, state, station

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import ObjectEvent, Status, StructArray, Tombstone

OPTIONAL = ["uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors", "lastObEnd", "nis", "dof", "updates",
            "existence", "provenance"]  # fmt: skip
ALWAYS = ["v", "type", "streamEpoch", "seq", "trackId", "epoch", "referenceFrame", "xpos", "ypos", "zpos", "xvel",
          "yvel", "zvel", "cov", "covReferenceFrame", "status", "classificationMarking", "dataMode", "source",
          "releasableTo"]  # fmt: skip
ORIENTATION = EarthOrientation()
STATUS = ["tentative", "confirmed", "coasting"]

maybe = st.sampled_from
RULES = st.lists(
    st.fixed_dictionaries(
        {"release": st.booleans()},
        optional={
            "objects": st.lists(maybe([25544, 43437, 7]), max_size=2, unique=True),
            "uct": st.booleans(),
            "regimes": st.lists(maybe(["leo", "meo", "geo", "heo"]), max_size=2, unique=True),
            "inclination_deg": maybe([[0.0, 55.0], [45.0, 90.0], [70.0, 180.0]]),
            "perigee_km": maybe([[0.0, 800.0], [700.0, 3_000.0]]),
            "apogee_km": maybe([[0.0, 900.0], [600.0, 40_000.0]]),
            "area": maybe(
                [
                    {"lat_deg": [0.0, 90.0]},
                    {"lon_deg": [100.0, 20.0]},
                    {"lat_deg": [-40.0, 30.0], "lon_deg": [-60.0, 120.0]},
                ]
            ),
            "sensors_only": maybe([["north"], ["south"], ["north", "south"]]),
            "sensors_none": maybe([["north"], ["south"]]),
            "status": st.lists(maybe(STATUS), min_size=1, max_size=2, unique=True),
            "fields": st.lists(maybe(OPTIONAL), max_size=4, unique=True),
            "precision_m": maybe([0.0, 100.0, 2_000.0]),
            "delay_s": maybe([0.0, 0.0, 4.0]),
            "min_interval_s": maybe([0.0, 3.0]),
            "events": st.booleans(),
        },
    ),
    max_size=4,
)
CAVEAT = maybe([None, [], ["GBR"], ["FRA", "GBR"], ["FRA", "GBR", "ESP"]])
SKY = st.lists(
    st.tuples(
        st.integers(-1, 1),  # object
        st.integers(1, 3),  # sensors
        st.integers(0, 2),  # status
        st.sampled_from([400.0, 750.0, 20_200.0, 35_786.0]),
        st.sampled_from([0.1, 50.0, 56.0, 98.0]),
        st.floats(0.0, 360.0),
    ),
    min_size=1,
    max_size=6,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
        if isinstance(value, str)
        else str(value)
    )


def matches(rule: dict[str, Any], row: StructArray, x: np.ndarray) -> bool:
    """Whether a rule's conditions hold for a state whose position and velocity are published as ``x`` (m, m/s)."""
    number = OBJECTS[row["object"]].sat_no if row["object"] >= 0 else None
    names = [name for i, name in enumerate(["north", "south"]) if int(row["sensors"]) >> i & 1]
    r, v = x[:3], x[3:]
    mu = 3.986004418e14
    energy = v @ v / 2.0 - mu / np.linalg.norm(r)
    h = np.cross(r, v)
    eccentricity = np.linalg.norm(np.cross(v, h) / mu - r / np.linalg.norm(r))
    a = -mu / 2.0 / energy
    perigee, apogee = (a * (1.0 + s * eccentricity) / 1e3 - 6_378.137 for s in (-1.0, 1.0))
    inclination = np.degrees(np.arctan2(np.hypot(h[0], h[1]), h[2]))
    day = 2.0 * np.pi * np.sqrt(a**3 / mu) / 86_164.0905
    geo = abs(day - 1.0) < 0.1 and eccentricity < 0.1
    regime = "geo" if geo else "heo" if eccentricity >= 0.25 else "leo" if apogee < 2_000.0 else "meo"
    fixed = ORIENTATION.gcrf_to_itrf(np.array([row["epoch_ns"]]))[0] @ r
    lon, lat, _ = erfa.gc2gd(1, fixed)
    lon, lat = np.degrees(lon), np.degrees(lat)

    def between(key: str, value: float) -> bool:
        return key not in rule or rule[key][0] <= value <= rule[key][1]

    area = rule.get("area", {})
    west, east = area.get("lon_deg", [-180.0, 180.0])
    in_lon = any(
        west <= lon + turn <= (east if east > west else east + 360.0) for turn in (-360.0, 0.0, 360.0)
    )
    return all(
        (
            "objects" not in rule or number in rule["objects"],
            "uct" not in rule or rule["uct"] == (number is None),
            "regimes" not in rule or regime in rule["regimes"],
            between("inclination_deg", inclination),
            between("perigee_km", perigee),
            between("apogee_km", apogee),
            area.get("lat_deg", [-90, 90])[0] <= lat <= area.get("lat_deg", [-90, 90])[1] and in_lon,
            "sensors_only" not in rule or set(names) <= set(rule["sensors_only"]),
            "sensors_none" not in rule or not set(names) & set(rule["sensors_none"]),
            "status" not in rule or STATUS[row["status"]] in rule["status"],
        )
    )


@settings(max_examples=150, deadline=None)
@given(
    rules=RULES,
    caveats=st.tuples(CAVEAT, CAVEAT),
    sky=SKY,
    key=st.integers(0, 1000),
    changes=st.integers(0, 5),
)
def test_nothing_outside_the_policy_is_in_the_bytes(
    rules: list[dict[str, Any]], caveats: tuple[Any, Any], sky: list[Any], key: int, changes: int
) -> None:
    text = ""
    for i, rule in enumerate(rules):
        text += f'[[group.g.rule]]\nname = "r{i}"\n' + "".join(f"{k} = {toml(v)}\n" for k, v in rule.items())
    south = "" if caveats[1] is None else f"releasable_to = {toml(caveats[1])}"
    config = station(text, sensor=south)
    if caveats[0] is not None:
        north = config.sensor["north"].model_copy(update={"releasable_to": tuple(caveats[0])})
        config = config.model_copy(update={"sensor": {**config.sensor, "north": north}})
    b = Bench(ORIENTATION, config, key=f"key number {key:06d}".encode())
    rows_of: dict[tuple[int, int], StructArray] = {}
    names: dict[str, int] = {
        f"alpha-{b.groups.context.offsets.identity('g', track)}": track for track in range(1, len(sky) + 1)
    }
    shown: set[str] = set()
    last: dict[str, int] = {}
    unlocked = [allowed is None or {"GBR", "FRA"} <= set(allowed) for allowed in caveats]
    plain = not any(r.get(k) for r in rules for k in ("precision_m", "delay_s", "min_interval_s"))
    withdrawn: set[int] = set()
    seq = 0
    for k in range(9):
        rows = []
        for track, (known, sensors, status, height, inclination, u) in enumerate(sky, 1):
            if track == changes and k >= 5:
                known = -1 - known if known < 1 else 0
            row = state(track, k, known, sensors, height_km=height, inclination_deg=inclination, u_deg=u)
            row["status"] = Status(status)
            rows_of[track, int(row["epoch_ns"][0])] = row
            rows.append(row)
        if k < 7:
            b.groups.states(np.concatenate(rows), T0_NS + k * NS)
            for track in range(1, len(sky) + 1):
                event = ObjectEvent(
                    "breakup",
                    track,
                    T0_NS + k * NS,
                    related=track % len(sky) + 1,
                    count=9,
                    sensors=sky[track - 1][1],
                )
                b.groups.event(event, T0_NS + k * NS)
        if k == 7:
            b.groups.end(Tombstone(1, T0_NS + 6 * NS, "merged", len(sky)), T0_NS + k * NS)
        b.at(k)
        released = b.everything
        withdrawn |= {names[m["trackId"]] for m in released if m["type"] == "tombstone"}
        if plain and k < 7:  # and what is to be released, is
            due = []
            for track, row in enumerate((row[0] for row in rows), 1):
                first = next((r for r in rules if matches(r, row, row["x"])), {"release": False})
                free = all(unlocked[i] for i in range(2) if int(row["sensors"]) >> i & 1)
                if first["release"] and free and track not in withdrawn:
                    due.append(track)
            told = [names[m["trackId"]] for m in released if m["type"] == "state"]
            assert [track for track in told if track not in withdrawn] == due
        for body in released:
            seq += 1
            assert body["seq"] == seq
            assert body["releasableTo"] == ["GBR", "FRA"]
            assert body["classificationMarking"] == "R"
            if body["type"] == "heartbeat":
                assert body["tracks"] == len(shown)
                assert sum(body["messages"].values()) == seq
            if body["type"] == "tombstone":
                assert body["trackId"] in shown
                assert body["successor"] is None or body["successor"] in shown
                shown.remove(body["trackId"])
            if body["type"] == "event":
                assert {body["trackId"], body["relatedTrackId"]} <= shown
                assert body["count"] is None
            if body["type"] != "state":
                continue
            shown.add(body["trackId"])
            track, epoch = names[body["trackId"]], tai_ns_from_utc_text(body["epoch"])
            row = rows_of[track, epoch][0]
            assert all(unlocked[i] for i in range(2) if int(row["sensors"]) >> i & 1)
            x = np.array([body[axis] for axis in ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")]) * 1e3
            off = float(np.linalg.norm(x[:3] - row["x"][:3]))
            newest = row.copy()
            current = rows_of[track, max(e for t, e in rows_of if t == track and e <= T0_NS + k * NS)][0]
            newest["object"] = current["object"]
            coarsest = max((r.get("precision_m", 0.0) for r in rules if r["release"]), default=0.0)
            for rule in rules:
                if rule["release"] and matches(rule, newest, x):
                    break
                if not rule["release"] and coarsest == 0.0:
                    assert not matches(rule, newest, x)
            else:
                raise AssertionError("no rule releases it")
            deciding = [r for r in rules if r["release"] and matches(r, newest, x)]
            allowed = [r for r in deciding if off >= r.get("precision_m", 0.0) * 0.9]
            assert allowed, "off by less than any rule that releases it says"
            assert any(set(body) <= set(ALWAYS) | set(r.get("fields", OPTIONAL)) for r in deciding)
            assert any(epoch + r.get("delay_s", 0.0) * NS <= T0_NS + k * NS for r in deciding)
            if "sensors" in body:
                assert set(body["sensors"]) <= {
                    n for n, ok in zip(["north", "south"], unlocked, strict=True) if ok
                }
            if body["trackId"] in last:
                assert epoch >= last[body["trackId"]]
            last[body["trackId"]] = epoch
            if plain:
                first = next(r for r in rules if matches(r, newest, x))
                assert first["release"]
                assert off < 1e-6
                assert set(body) == set(ALWAYS) | set(first.get("fields", OPTIONAL))
