"""What each sensor is doing: whether it talks, how fast, how late, and what it says of itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusionnode.config import Config
from fusionnode.core.types import DetectionFlag, ReportKind, SensorReport, StructArray

_REMEMBERED = 256
_SILENT_REVISITS = 20.0
_SILENT_AT_LEAST_S = 10.0
"""Twice the longest time between two status messages that the sensor interface allows."""
_MOST_STRANGERS = 64
OTHER_STRANGERS = "sensor:other"


class _Seen:
    def __init__(self) -> None:
        self.count = 0
        self.last_rx_ns = 0
        self.last_meas_ns = 0
        self.latency_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.flags: int | None = None
        self.reported: dict[str, int | float] = {}
        self.counted_at_ns = 0
        self.counted = 0


class SensorWatch:
    """Per configured sensor, from detections and reports; and how many came from sensors nobody knows."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._name_of = {sensor.id: name for name, sensor in config.sensor.items()}
        self._seen = {name: _Seen() for name in config.sensor}
        self._strangers: dict[str, int] = {}

    def note_detections(self, detections: StructArray) -> None:
        """Take DETECTION[n] as they came in, used later or not."""
        ids = detections["sensor_id"]
        lone = len(detections) == 1  # sorting is a third of what this costs for one
        for sensor_id in ids.tolist() if lone else np.unique(ids).tolist():
            rows = detections if lone else detections[ids == sensor_id]
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
            seen.last_meas_ns = max(seen.last_meas_ns, int(rows["t_meas_ns"][-1]))
            seen.flags = int(rows["flags"][-1])
            late = (rows["t_rx_ns"][-_REMEMBERED:] - rows["t_meas_ns"][-_REMEMBERED:]) * 1e-9
            seen.latency_s.extend(late.tolist())

    def note_reports(self, reports: Sequence[SensorReport]) -> None:
        """Take what sensors said of themselves."""
        for report in reports:
            name = self._name_of.get(report.sensor_id)
            if name is None:
                continue
            seen = self._seen[name]
            seen.last_rx_ns = max(seen.last_rx_ns, report.t_rx_ns)
            seen.flags = report.flags
            if report.kind is ReportKind.STATUS:
                seen.reported = report.fields

    def count(self, name: str) -> int:
        """Detections so far from a sensor, or from a stranger."""
        return self._seen[name].count if name in self._seen else self._strangers.get(name, 0)

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
                "reported": seen.reported,
            }
        return states
