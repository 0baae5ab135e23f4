"""CCSDS Tracking Data Messages (503.0-B-2, KVN or XML) -> detections, through the library ccsds-ndm-py.

A message is read as a whole, at `TdmDecoder.finish`. What is read: RANGE, DOPPLER_INSTANTANEOUS, ANGLE_1 and
ANGLE_2 (AZEL, or RADEC in ICRF, GCRF or EME2000), MAG and RCS, one detection for each epoch of a segment.
Corrections that the message states but has not applied are applied. A range that is not one between the sensor
and the object is left out: range units of a station, an ambiguous range (RANGE_MODULUS), a path with relays.
One way or round trip, bounce or receive time: the sensor's configuration says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import ccsds_ndm
import erfa
import numpy as np

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.timescales import (
    DAY_NS,
    TAI_MINUS_GPS_NS,
    TT_MINUS_TAI_NS,
    tai_ns_from_utc,
    utc_from_text,
)
from fusionnode.core.types import DETECTION, Channel, Decoded, Kind, StructArray, no_detections

MAX_BYTES: Final = 64 << 20
"""A longer message is refused."""

_SPEED_OF_LIGHT_KM_S: Final = 299_792.458
_TAI_MINUS: Final = {"TAI": 0, "GPS": TAI_MINUS_GPS_NS, "TT": -TT_MINUS_TAI_NS}
_MEASURED: Final = {
    "RANGE": Channel.RANGE,
    "ANGLE_1": Channel.ANGLES,
    "ANGLE_2": Channel.ANGLES,
    "DOPPLER_INSTANTANEOUS": Channel.RANGE_RATE,
}
_EXTRA: Final = {"MAG": "magnitude", "RCS": "rcs_dbsm"}
_CORRECTIONS: Final = {
    "RANGE": "correction_range",
    "ANGLE_1": "correction_angle_1",
    "ANGLE_2": "correction_angle_2",
    "DOPPLER_INSTANTANEOUS": "correction_doppler",
    "MAG": "correction_mag",
    "RCS": "correction_rcs",
}


class TdmDecoder:
    """One message a file or stream. Sigmas are 0: the sensor's configuration knows them.

    The sensor is the last participant of the path. ``sensor_ids`` gives the numbers of participants by name; for
    other names the first number in the name is taken (``DSS-25`` is 25), and 0 where there is none.
    """

    def __init__(self, link_id: str, outcomes: Outcomes, sensor_ids: Mapping[str, int] | None = None) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._sensor_ids = dict(sensor_ids or {})
        self._chunks: list[bytes] = []
        self._size = 0
        self._t_rx_ns = 0
        self._seq = 0
        self.reason: str | None = None
        """Why the last message, or the last part of one that was left out, could not be used: one line."""

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Keep the bytes until `finish`; no detections yet."""
        for t_rx_ns, data in chunks:
            self._t_rx_ns = t_rx_ns
            self._size += len(data)
            if self._size <= MAX_BYTES:
                self._chunks.append(data)
            else:
                self._chunks = []
        return Decoded(no_detections(), [])

    def finish(self) -> Decoded:
        """Detections of the message gathered so far, in its own order."""
        data, size = b"".join(self._chunks), self._size
        self._chunks, self._size = [], 0
        if size > MAX_BYTES:
            self._refuse(Outcome.FRAME_TOO_LONG, f"longer than {MAX_BYTES} bytes")
        elif data.strip():
            found = [row for segment in self._segments(data) for row in self._detections(segment)]
            if found:
                out = np.concatenate(found)
                self._outcomes.add(self._link_id, Outcome.FRAME_ACCEPTED, len(out))
                return Decoded(out, [])
        return Decoded(no_detections(), [])

    def _refuse(self, outcome: Outcome, reason: str) -> None:
        self._outcomes.add(self._link_id, outcome)
        self.reason = reason

    def _segments(self, data: bytes) -> list[Any]:
        try:
            text = data.decode("utf-8-sig")
            if not text.lstrip().startswith("<"):
                # The standard allows white space before a keyword, the library does not.
                text = "\n".join(line.strip() for line in text.splitlines()) + "\n"
            return list(ccsds_ndm.Tdm.from_str(text).body.segments)
        except UnicodeDecodeError:
            self._refuse(Outcome.FRAME_MALFORMED, "expected text of the message's character set, ASCII")
        except (ValueError, ccsds_ndm.NdmError) as error:
            self._refuse(Outcome.FRAME_MALFORMED, " ".join(str(error).split())[:300])
        return []

    def _detections(self, segment: Any) -> Iterator[StructArray]:
        """DETECTION[1] for each epoch of one segment."""
        meta = segment.metadata
        observations = segment.data.observations
        try:
            reader = _Segment(meta, {o.keyword for o in observations})
        except ValueError as error:
            self._refuse(Outcome.FRAME_UNKNOWN_TYPE, str(error))
            return
        sensor_id = self._sensor_id(_sensor_name(meta))
        for epoch, values in _by_epoch(observations):
            try:
                out = reader.detection(epoch, values)
            except ValueError as error:
                self._refuse(Outcome.FRAME_BAD_FIELD, str(error))
                continue
            if out is None:
                self._refuse(Outcome.FRAME_UNKNOWN_TYPE, f"{epoch}: nothing that is read")
                continue
            self._seq += 1
            out["t_rx_ns"], out["sensor_id"], out["seq"] = self._t_rx_ns, sensor_id, self._seq & 0xFFFFFFFF
            yield out

    def _sensor_id(self, name: str) -> int:
        if name in self._sensor_ids:
            return self._sensor_ids[name]
        number = re.search(r"\d+", name, re.ASCII)
        value = int(number.group()[:12]) if number else 0
        return value if value <= 0xFFFFFFFF else 0


class _Segment:
    """How the values of one segment are to be read.

    Raises:
        ValueError: one line; the segment is of a kind that is not read.
    """

    def __init__(self, meta: Any, keywords: set[str]) -> None:
        if str(meta.mode or "SEQUENTIAL").upper() != "SEQUENTIAL":
            raise ValueError(f"MODE = {meta.mode}: expected SEQUENTIAL")
        self._system = str(meta.time_system).upper()
        if self._system != "UTC" and self._system not in _TAI_MINUS:
            raise ValueError(f"TIME_SYSTEM = {self._system}: expected UTC, TAI, GPS or TT")
        path = _path(meta)
        ranged = bool(keywords & {"RANGE", "DOPPLER_INSTANTANEOUS"})
        self._to_gcrf: Any = None
        angles = str(meta.angle_type or "AZEL").upper()
        if angles == "AZEL":
            echo = len(path) > 2 and path[0] == path[-1]
            self._kind = Kind.RADAR_AZEL if ranged or echo or "RCS" in keywords else Kind.OPTICAL_AZEL
        elif angles == "RADEC":
            self._kind = Kind.OPTICAL_RADEC
            frame = str(meta.reference_frame or "ICRF").upper()
            if frame not in ("ICRF", "GCRF", "EME2000"):
                raise ValueError(f"REFERENCE_FRAME = {frame}: expected EME2000, ICRF or GCRF")
            if frame == "EME2000":
                # Mean equator and equinox of J2000: 23 milliarcseconds from the GCRF.
                self._to_gcrf = np.asarray(erfa.bp06(2_451_545.0, 0.0)[0]).T
        else:
            raise ValueError(f"ANGLE_TYPE = {angles}: expected AZEL or RADEC")
        units = str(meta.range_units or "km")
        self._km = {"km": 1.0, "s": _SPEED_OF_LIGHT_KM_S}.get(units.lower(), 0.0)
        self._range_is_usable = self._km > 0 and not meta.range_modulus and len(path) <= 3
        self._corrections = {}
        if str(meta.corrections_applied or "").upper() == "NO":
            for keyword, name in _CORRECTIONS.items():
                self._corrections[keyword] = float(getattr(meta, name, None) or 0.0)

    def detection(self, epoch: str, values: dict[str, float | None]) -> StructArray | None:
        """DETECTION[1] of the values at one epoch; None where none of them is read.

        Raises:
            ValueError: one line; a time or a value that is none.
        """
        for keyword, value in values.items():
            if value is None or not math.isfinite(value):
                raise ValueError(f"{keyword} at {epoch}: expected a finite number")
        read = {k: v + self._corrections.get(k, 0.0) for k, v in values.items() if v is not None}
        if not self._range_is_usable:
            read.pop("RANGE", None)
        channels = 0
        out = np.zeros(1, DETECTION)
        for name in ("snr_db", "rcs_dbsm", "magnitude", "exposure_s"):
            out[name] = np.nan
        if "RANGE" in read:
            channels |= Channel.RANGE
            out["range_m"] = read["RANGE"] * self._km * 1_000.0
        if "DOPPLER_INSTANTANEOUS" in read:
            channels |= Channel.RANGE_RATE
            out["range_rate_m_s"] = read["DOPPLER_INSTANTANEOUS"] * 1_000.0
        if "ANGLE_1" in read and "ANGLE_2" in read:
            channels |= Channel.ANGLES
            out["lon_rad"], out["lat_rad"] = self._angles(read["ANGLE_1"], read["ANGLE_2"])
        if not channels:
            return None
        if "MAG" in read:
            out["magnitude"] = read["MAG"]
        if read.get("RCS", 0.0) > 0.0:
            out["rcs_dbsm"] = 10.0 * math.log10(read["RCS"])
        out["t_meas_ns"] = self._tai_ns(epoch)
        out["kind"], out["channels"] = self._kind, channels
        return out

    def _angles(self, first_deg: float, second_deg: float) -> tuple[float, float]:
        lon, lat = math.radians(first_deg), math.radians(second_deg)
        if self._to_gcrf is not None and abs(lat) <= math.pi / 2:
            lon, lat = erfa.c2s(self._to_gcrf @ erfa.s2c(lon, lat))
            lon %= 2.0 * math.pi
        return float(lon), float(lat)

    def _tai_ns(self, epoch: str) -> int:
        day, ns = utc_from_text(epoch)
        if self._system == "UTC":
            return int(tai_ns_from_utc(day, ns))
        return day * DAY_NS + ns + _TAI_MINUS[self._system]


def _path(meta: Any) -> list[int]:
    """Participants in the order of the signal; [1] where the message does not say."""
    path = [int(p) for p in re.findall(r"\d+", str(meta.path or ""), re.ASCII)]
    return path or [1]


def _sensor_name(meta: Any) -> str:
    return str(getattr(meta, f"participant_{_path(meta)[-1]}", None) or "").strip()


def _by_epoch(observations: list[Any]) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Values by keyword for each epoch, in order of first mention; a second RANGE at an epoch opens another set."""
    sets: dict[tuple[str, int], dict[str, float | None]] = {}
    for observation in observations:
        keyword, epoch = observation.keyword, observation.epoch
        if keyword not in _MEASURED and keyword not in _EXTRA:
            sets.setdefault((epoch, 0), {})
            continue
        n = 0
        while keyword in _MEASURED and keyword in sets.get((epoch, n), {}):
            n += 1
        sets.setdefault((epoch, n), {})[keyword] = observation.value
    for (epoch, _), values in sets.items():
        yield epoch, values
