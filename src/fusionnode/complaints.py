"""What an operator should be told while the node runs: inputs that come in and are of no use, and the likely cause.

Pure: from two summaries of the pipeline to log lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fusionnode.core.outcome import PENDING, Outcome

Ledger = Mapping[str, Any]

_WORTH_TELLING = 0.5
"""Share of the inputs since the last look that must have been of no use."""
_USEFUL = {Outcome.USED, Outcome.USED_INITIATION, PENDING, "in"}
_HINTS = {
    Outcome.LATE: "is its clock behind, or in UTC instead of TAI? or is tracking.late_age_s too short",
    Outcome.TIME_IN_FUTURE: "is its clock ahead, or the node's behind",
    Outcome.UNKNOWN_SENSOR: "no [sensor.*] has this id",
    Outcome.WRONG_KIND: "its kind or angles in the configuration are not what it sends",
    Outcome.OUT_OF_LIMITS: "ranges, elevations or sigmas beyond what its configuration allows",
    Outcome.GATED_OUT: "near tracks, but outside their gates: are its sigmas too small, or its biases not removed",
    Outcome.FRAME_BAD_COBS: "noise, or a wrong baud rate",
    Outcome.FRAME_TOO_LONG: "noise, or a wrong baud rate",
    Outcome.FRAME_BAD_CRC: "frames are damaged on the way",
    Outcome.FRAME_BAD_VERSION: "the sensor speaks another version of the interface",
    Outcome.QUEUE_FULL: "more comes in than the node can take",
}


def complaints(before: Ledger, now: Ledger) -> Iterator[dict[str, Any]]:
    """Fields of one log line for each sensor or link of whose inputs, since ``before``, most were of no use.

    Both are from ``Pipeline.summary``. Unassociated detections are no reason to complain: the sky is full of things.
    """
    for name, ledger in now.get("sensors", {}).items():
        since = _since(before.get("sensors", {}).get(name, {}), ledger)
        useless = {k: n for k, n in since.items() if k not in _USEFUL and k != Outcome.UNASSOCIATED}
        yield from _complaint({"sensor": name}, since.get("in", 0), useless)
    for name, ledger in now.get("links", {}).items():
        since = _since(before.get("links", {}).get(name, {}), ledger)
        useless = {k: n for k, n in since.items() if k not in (Outcome.FRAME_ACCEPTED, Outcome.RUBBISH_BYTES)}
        yield from _complaint(
            {"link": name}, sum(useless.values()) + since.get(Outcome.FRAME_ACCEPTED, 0), useless
        )


def clock_complaints(before: Ledger, now: Ledger) -> Iterator[dict[str, Any]]:
    """Fields of one log line for each sensor whose clock stepped, began to drift, or ran backwards since ``before``."""
    clocks, earlier = now.get("clocks", {}), before.get("clocks", {})
    stepped = [
        name for name, c in clocks.items() if c["clockSteps"] > earlier.get(name, {}).get("clockSteps", 0)
    ]
    sizes = [clocks[name]["clockStepS"] for name in stepped]
    together = len(sizes) > 1 and max(sizes) - min(sizes) <= 0.1 * abs(max(sizes, key=abs))
    for name, clock in clocks.items():
        then = earlier.get(name, {})
        told: dict[str, Any] = {}
        if name in stepped:
            told["step_s"] = round(clock["clockStepS"], 3)
            told["hint"] = (
                "several stepped alike: this computer's clock"
                if together
                else "its clock was set, or its way to the node became another"
            )
        if clock["clockState"] == "drifting" and then.get("clockState") != "drifting":
            told["drift_ppm"] = round(clock["clockDriftPpm"], 1)
        if (back := clock["clockBackwards"] - then.get("clockBackwards", 0)) > 0:
            told["backwards"] = back
        if told:
            yield {"sensor": name, **told}


def _since(before: Ledger, now: Ledger) -> dict[str, int]:
    return {k: n - before.get(k, 0) for k, n in now.items() if not isinstance(n, bool)}


def _complaint(whose: dict[str, Any], total: int, useless: dict[str, int]) -> Iterator[dict[str, Any]]:
    count = sum(useless.values())
    if count == 0 or count < _WORTH_TELLING * total:
        return
    worst = max(useless, key=lambda k: useless[k])
    told = {k: n for k, n in useless.items() if n}
    hint = _HINTS.get(worst)  # type: ignore[call-overload]
    yield {**whose, "of": total, **told, **({"hint": hint} if hint else {})}
