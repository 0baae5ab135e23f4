"""Why a group is, or is not, told of a state: in words, for the operator's dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusionnode.core import schema, timescales
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import TRACK_STATE, KnownObject, StructArray
from fusionnode.release.batch import Context, StateBatch
from fusionnode.release.policy import CompiledRule, Policy
from fusionnode.release.precision import EXACT, Offsets, sigma_m, size_m

_AXES = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")


def state_of(body: Mapping[str, Any], sensors: Sequence[str]) -> StructArray:
    """TRACK_STATE[1] of a state as it stands in the node's own stream; ``object`` is 0 if it is correlated.

    Raises:
        KeyError, ValueError: a field is missing or is not what it should be.
    """
    out = np.zeros(1, TRACK_STATE)
    row = out[0]
    digits = str(body["trackId"]).rpartition("-")[2]
    row["track"] = int(digits) if digits.isdigit() else 0
    row["epoch_ns"] = timescales.tai_ns_from_utc_text(body["epoch"])
    row["last_ob_ns"] = timescales.tai_ns_from_utc_text(body["lastObEnd"])
    row["status"] = schema.STATUSES.index(body["status"])
    row["x"] = np.array([body[axis] for axis in _AXES], float) * 1e3
    lower = np.zeros((6, 6))
    lower[np.tril_indices(6)] = np.array(body["cov"], float) * 1e6
    row["P"] = lower + np.tril(lower, -1).T
    row["sensors"] = sum(1 << i for i, name in enumerate(sensors) if name in body["sensors"])
    row["object"] = -1 if body["satNo"] is None else 0
    return out


def explanation(
    policy: Policy, body: Mapping[str, Any], orientation: EarthOrientation, offset_key: bytes
) -> dict[str, Any]:
    """What the policy makes of a state from the node's own stream: plain values, for people and for JSON."""
    known = None
    if body["satNo"] is not None:
        known = KnownObject(int(body["satNo"]), str(body["name"]), str(body["idOnOrbit"]))
    context = Context(
        orientation=orientation,
        known_object=lambda row: known if row == 0 else None,
        sat_numbers=np.array([] if known is None else [known.sat_no], np.int64),
        sensor_names=policy.sensors,
        provenance=("",),
        offsets=Offsets(offset_key, str(body.get("streamEpoch", ""))),
    )
    rule, verdicts = policy.explain(StateBatch(state_of(body, policy.sensors), context))
    released = rule is not None and rule.release
    return {
        "track": body["trackId"],
        "satNo": body["satNo"],
        "name": body["name"],
        "epoch": body["epoch"],
        "group": policy.name,
        "released": released,
        "rule": None if rule is None else rule.name,
        "reason": _reason(rule, f"{verdicts[0].rule} {verdicts[0].reason}" if verdicts else ""),
        "rules": [{"rule": v.rule, "decided": v.decided, "reason": v.reason} for v in verdicts],
        "effects": effects(rule) if released and rule is not None else None,
        "markings": {
            "classificationMarking": policy.group.classification_marking,
            "releasableTo": list(policy.group.releasable_to),
        },
    }


def _reason(rule: CompiledRule | None, first: str) -> str:
    if rule is None:
        return first if first.startswith("(") else "no rule releases it"
    return f"rule {rule.name!r} {'releases' if rule.release else 'denies'} it"


def effects(rule: CompiledRule) -> dict[str, Any]:
    """What a rule does to a state that it releases."""
    e = rule.effects
    told: dict[str, Any] = {
        "fields": "all" if e.fields is None else sorted(e.fields),
        "delay_s": e.delay_ns / 1e9,
        "min_interval_s": e.interval_ns / 1e9,
        "events": e.events,
        "precision_m": size_m(e.level),
    }
    if e.level != EXACT:
        told["offset_sigma_m"] = round(sigma_m(e.level), 3)
    return told
