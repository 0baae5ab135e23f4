"""What each sensor is doing: whether it talks, how fast, how late, and what it says of itself."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from fusionnode.config import Config
from fusionnode.core.types import Decoded, DetectionFlag, ReportKind, StructArray
from fusionnode.intake.clockwatch import ClockWatch

_REMEMBERED = 256
_SILENT_REVISITS = 20.0
_SILENT_AT_LEAST_S = 10.0
"""Twice the longest time between two status messages that the sensor interface allows."""
_MOST_STRANGERS = 64
_RESTARTED = 100_000
"""A sequence number that is further off than this began anew (the sensor rebooted, or its counter wrapped)."""
OTHER_STRANGERS = "sensor:other"


class _Seen:
    def __init__(self, clock: ClockWatch) -> None:
        self.clock = clock
        self.count = 0
        self.last_rx_ns = 0
        self.newest_seq: int | None = None
        self.missed = 0
        self.latency_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.flags: int | None = None
        self.reported: dict[str, int | float] = {}
        self.counted_at_ns = 0
        self.counted = 0

    def count_missed(self, seqs: list[int]) -> None:
        """Sequence numbers of what came, in any order: how many in between did not come?"""
        top = max(seqs)
        if top == 0:
            return  # this sensor does not count
        if self.newest_seq is not None:
            ahead = top - self.newest_seq
            if 0 < ahead < _RESTARTED:
                self.missed += max(0, ahead - len(seqs))
            elif -_RESTARTED < ahead <= 0:
                return  # an old one, late
        self.newest_seq = top


class SensorWatch:
    """Per configured sensor, from detections and reports; and how many came from sensors nobody knows."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._name_of = {sensor.id: name for name, sensor in config.sensor.items()}
        judged = config.clock.mode != "data"
        self._seen = {
            name: _Seen(ClockWatch(sensor.revisit_s, judged=judged)) for name, sensor in config.sensor.items()
        }
        self._strangers: dict[str, int] = {}

    def note(self, decoded: Decoded) -> None:
        """Take what came over one link at once: detections, used later or not, and what sensors said of themselves."""
        numbers: dict[str, list[int]] = {}
        self._note_detections(decoded.detections, numbers)
        for report in decoded.reports:
            name = self._name_of.get(report.sensor_id)
            if name is None:
                continue
            seen = self._seen[name]
            seen.last_rx_ns = max(seen.last_rx_ns, report.t_rx_ns)
            seen.flags = report.flags
            numbers.setdefault(name, []).append(report.seq)
            if report.kind is ReportKind.STATUS:
                seen.reported = report.fields
        for name, seqs in numbers.items():
            self._seen[name].count_missed(seqs)

    def _note_detections(self, detections: StructArray, numbers: dict[str, list[int]]) -> None:
        ids = detections["sensor_id"]
        for sensor_id in np.unique(ids).tolist() if len(ids) > 1 else ids.tolist():
            rows = detections[ids == sensor_id] if len(detections) > 1 else detections
            name = self._name_of.get(sensor_id)
            if name is None:
                key = f"sensor:{sensor_id}"
                if key not in self._strangers and len(self._strangers) >= _MOST_STRANGERS:
                    key = OTHER_STRANGERS
                self._strangers[key] = self._strangers.get(key, 0) + len(rows)
                continue
            seen = self._seen[name]
            seen.count += len(rows)
            seen.last_rx_ns = max(seen.last_rx_ns, int(rows["t_rx_ns"][-1]))
            seen.flags = int(rows["flags"][-1])
            late = (rows["t_rx_ns"][-_REMEMBERED:] - rows["t_meas_ns"][-_REMEMBERED:]) * 1e-9
            seen.latency_s.extend(late.tolist())
            seen.clock.note(rows["t_rx_ns"], rows["t_meas_ns"], rows["seq"])
            numbers[name] = rows["seq"].tolist()

    def count(self, name: str) -> int:
        """Detections so far from a sensor, or from a stranger."""
        return self._seen[name].count if name in self._seen else self._strangers.get(name, 0)

    def clocks(self, t_ns: int) -> dict[str, dict[str, Any]]:
        """By sensor name: what there is to say of its clock (see `ClockWatch.state`)."""
        return {name: seen.clock.state(t_ns) for name, seen in self._seen.items()}

    def strangers(self) -> list[str]:
        """Sensors without a configuration that sent detections, as ``sensor:ID``."""
        return sorted(self._strangers)

    def states(self, t_ns: int) -> dict[str, dict[str, Any]]:
        """By sensor name: what there is to tell a subscriber at ``t_ns``, TAI; rates since the last call."""
        states = {}
        for name, sensor in self._config.sensor.items():
            seen = self._seen[name]
            site = self._config.site[sensor.site]
            patience_s = max(_SILENT_REVISITS * sensor.revisit_s, _SILENT_AT_LEAST_S)
            since_s = (t_ns - seen.last_rx_ns) * 1e-9 if seen.last_rx_ns else None
            elapsed_s = (t_ns - seen.counted_at_ns) * 1e-9 if seen.counted_at_ns else 0.0
            rate = (seen.count - seen.counted) / elapsed_s if elapsed_s > 0 else None
            seen.counted_at_ns, seen.counted = t_ns, seen.count
            latency = np.array(seen.latency_s)
            states[name] = {
                "id": sensor.id,
                "kind": sensor.kind,
                "enabled": sensor.enabled,
                "latDeg": site.lat_deg,
                "lonDeg": site.lon_deg,
                "heightM": site.height_m,
                "alive": since_s is not None and since_s <= patience_s,
                "silentS": since_s,
                "rateHz": rate,
                "latencyP50S": float(np.median(latency)) if len(latency) else None,
                "latencyMaxS": float(latency.max()) if len(latency) else None,
                "timeLocked": None if seen.flags is None else bool(seen.flags & DetectionFlag.TIME_LOCKED),
                "missed": seen.missed,
                **seen.clock.state(t_ns),
                "reported": seen.reported,
            }
        return states
