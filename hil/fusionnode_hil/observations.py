"""Recorded observations as messages of the sensor interface: SSN B3 and CCSDS TDM (KVN).

Readers of the bench's own: what a file means is not taken from the node's codecs. Numbers go from the text to the
wire's integers exactly rounded, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from fusionnode_hil import wire
from fusionnode_hil.ephemeris import TruthError, read_text
from fusionnode_hil.sky import C
from fusionnode_hil.times import day_to_tai_ns, parse_time

B3_LENGTH = 75


class ObservationError(Exception):
    """A file of observations cannot be played; the text is one line."""


@dataclass
class Recording:
    """Messages of one or several files, and what became of each record: ``messages`` are still without ``seq``."""

    messages: list[wire.Radar | wire.Optical] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def in_order(self) -> list[wire.Radar | wire.Optical]:
        """By time, then by sensor; equal ones stay in the order of the files."""
        return sorted(self.messages, key=lambda m: (m.t_ns, m.sensor_id))


def read(path: Path, sensors: Mapping[str, int], into: Recording) -> None:
    """Add a file's records. The text tells the format: TDM begins with CCSDS_TDM_VERS, anything else is B3.

    ``sensors`` gives sensor ids by the name in the file: a B3 sensor number or a TDM participant. A B3 number that is
    not named is taken as the id.

    Raises:
        ObservationError: one line.
    """
    try:
        text = read_text(path)
    except TruthError as error:
        raise ObservationError(str(error)) from None
    if text.lstrip().startswith("CCSDS_TDM_VERS"):
        _Tdm(path, sensors, into).read(text)
    else:
        before = len(into.messages)
        _read_b3(text, sensors, into)
        if len(into.messages) == before:
            raise ObservationError(f"{path}: no B3 records found, and it is not TDM")


# B3: 75 columns a record

_OVERPUNCH = {"}": "0"} | {chr(ord("J") + i): str(i + 1) for i in range(9)}


def _read_b3(text: str, sensors: Mapping[str, int], into: Recording) -> None:
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            into.messages.append(_b3_record(line, sensors))
            into.outcomes["sent"] += 1
        except ValueError as error:
            into.outcomes[str(error) if error.args and error.args[0] in _REASONS else "malformed"] += 1


_REASONS = ("too short", "unknown type", "not on the wire")


def _b3_record(line: str, sensors: Mapping[str, int]) -> wire.Radar:
    if len(line) < B3_LENGTH:
        raise ValueError("too short")
    kind = line[74]
    if kind not in "1234":
        raise ValueError("unknown type")
    year = _digits(line[9:11])
    first = date(year + (1900 if year >= 57 else 2000), 1, 1)
    day = date.fromordinal(first.toordinal() + _digits(line[11:14]) - 1)
    if day.year != first.year or _digits(line[14:16]) > 23 or _digits(line[16:18]) > 59:
        raise ValueError("malformed")
    seconds = (_digits(line[14:16]) * 60 + _digits(line[16:18])) * 60 + _digits(line[18:20])
    if _digits(line[18:20]) > 59:
        raise ValueError("malformed")
    t_ns = day_to_tai_ns(day, (seconds * 1000 + _digits(line[20:23])) * 1_000_000)
    number = line[6:9]
    values: dict[str, int] = {"valid": wire.VALID_ANGLES}
    values["el_bam32"] = _signed_bam(_signed(line[23:29]), 10**4)
    values["az_bam32"] = _bam(_signed(line[30:37]), 10**4)
    if kind in "234":
        # mantissa/1e5 km times a power of ten: 10 mm times it
        values["range_mm"] = _digits(line[38:45]) * 10 * 10 ** _digits(line[45])
        values["valid"] |= wire.VALID_RANGE
    if kind in "34":
        values["range_rate_mm_s"] = _signed(line[47:54]) * 10
        values["valid"] |= wire.VALID_RANGE_RATE
    sensor_id = sensors.get(number, _digits(number))
    if (kind in "234" and not 0 < values["range_mm"] < 2**63) or sensor_id == 0:
        raise ValueError("not on the wire")
    return wire.Radar(sensor_id=sensor_id, seq=0, t_ns=t_ns, **values)


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("malformed")
    return int(text)


def _signed(text: str) -> int:
    """A number that starts with '-', with an overpunched digit (J..R: -1..-9, '}': -0), or with a digit."""
    if text[0] == "-":
        return -_digits(text[1:])
    if text[0] in _OVERPUNCH:
        return -_digits(_OVERPUNCH[text[0]] + text[1:])
    return _digits(text)


# TDM: keyword = epoch value, in segments; what has one epoch is one detection


class _Tdm:
    def __init__(self, path: Path, sensors: Mapping[str, int], into: Recording) -> None:
        self._path, self._sensors, self._into = path, sensors, into

    def read(self, text: str) -> None:
        meta: dict[str, str] = {}
        points: dict[str, dict[str, Decimal]] = {}
        number = 0
        try:
            for line in text.splitlines():
                number += 1
                key, _, value = (part.strip() for part in line.partition("="))
                if key == "META_START":
                    meta, points = {}, {}
                elif key == "DATA_STOP":
                    self._segment(meta, points)
                elif not key or key.startswith("COMMENT") or not value:
                    continue
                else:
                    epoch, _, number_text = value.partition(" ")
                    if number_text and key in _TDM_DATA:
                        point = points.setdefault(epoch, {})
                        point[key] = Decimal(number_text.strip())
                    else:
                        meta[key] = value
        except (ValueError, InvalidOperation, ArithmeticError) as error:
            text = str(error) if isinstance(error, ValueError) else "a number that is none"
            raise ObservationError(f"{self._path}:{number}: {text}") from None

    def _segment(self, meta: Mapping[str, str], points: Mapping[str, Mapping[str, Decimal]]) -> None:
        people = [meta[key] for key in sorted(meta) if key.startswith("PARTICIPANT_")]
        ids = [self._sensors[name] for name in people if name in self._sensors]
        if not ids:
            raise ValueError(f"no sensor id for {' or '.join(people)}: give --sensor NAME=ID")
        make = self._maker(meta, ids[0])
        for epoch, point in points.items():
            message = make(parse_time(epoch, meta.get("TIME_SYSTEM", "UTC")), point)
            self._into.outcomes["sent" if message else "nothing measured"] += 1
            if message:
                self._into.messages.append(message)

    def _maker(
        self, meta: Mapping[str, str], sensor_id: int
    ) -> Callable[[int, Mapping[str, Decimal]], wire.Radar | wire.Optical | None]:
        angles = meta.get("ANGLE_TYPE", "AZEL")
        if angles not in ("AZEL", "RADEC"):
            raise ValueError(f"ANGLE_TYPE {angles}: expected AZEL or RADEC")
        unit = {"km": Fraction(10**6), "s": Fraction(C) * 1000}.get(meta.get("RANGE_UNITS", "km"))
        if unit is None:
            raise ValueError(f"RANGE_UNITS {meta['RANGE_UNITS']}: expected km or s")
        correct = meta.get("CORRECTIONS_APPLIED", "YES") == "NO"
        corrections = {
            key: Decimal(meta.get(f"CORRECTION_{key}", 0)) if correct else Decimal(0) for key in _TDM_DATA
        }

        def make(t_ns: int, point: Mapping[str, Decimal]) -> wire.Radar | wire.Optical | None:
            value = {key: Fraction(v + corrections[key]) for key, v in point.items()}
            both = "ANGLE_1" in value and "ANGLE_2" in value
            if angles == "RADEC" or "RANGE" not in value:
                return _optical(t_ns, sensor_id, value, angles) if both else None
            radar: dict[str, int] = {"range_mm": round(value["RANGE"] * unit), "valid": wire.VALID_RANGE}
            if radar["range_mm"] <= 0:
                return None
            if both:
                radar["valid"] |= wire.VALID_ANGLES
                radar |= {
                    "az_bam32": _bam(*value["ANGLE_1"].as_integer_ratio()),
                    "el_bam32": _signed_bam(*value["ANGLE_2"].as_integer_ratio()),
                }
            if "DOPPLER_INSTANTANEOUS" in value:
                radar["valid"] |= wire.VALID_RANGE_RATE
                radar["range_rate_mm_s"] = round(value["DOPPLER_INSTANTANEOUS"] * 10**6)
            if value.get("RCS", 0) > 0:
                radar["valid"] |= wire.VALID_RCS
                radar["rcs_cdbsm"] = round(Decimal(point["RCS"]).log10() * 1000)
            return wire.Radar(sensor_id=sensor_id, seq=0, t_ns=t_ns, **radar)

        return make


_TDM_DATA = ("RANGE", "ANGLE_1", "ANGLE_2", "DOPPLER_INSTANTANEOUS", "MAG", "RCS")


def _optical(t_ns: int, sensor_id: int, value: Mapping[str, Fraction], angles: str) -> wire.Optical:
    optical: dict[str, int] = {"valid": wire.VALID_ANGLES}
    if "MAG" in value:
        optical = {
            "valid": wire.VALID_ANGLES | wire.VALID_MAGNITUDE,
            "magnitude_mmag": round(value["MAG"] * 1000),
        }
    return wire.Optical(
        sensor_id=sensor_id,
        seq=0,
        t_ns=t_ns,
        lon_bam32=_bam(*value["ANGLE_1"].as_integer_ratio()),
        lat_bam32=_signed_bam(*value["ANGLE_2"].as_integer_ratio()),
        coordinates=wire.AZEL if angles == "AZEL" else wire.RADEC,
        **optical,
    )


def _bam(numerator: int, denominator: int) -> int:
    """The nearest binary angle to ``numerator / denominator`` degrees, in exact arithmetic."""
    return (2 * numerator * 2**32 + 360 * denominator) // (720 * denominator) % 2**32


def _signed_bam(numerator: int, denominator: int) -> int:
    if abs(numerator) > 90 * denominator:
        raise ValueError("not on the wire")
    return (_bam(numerator, denominator) + 2**31) % 2**32 - 2**31
