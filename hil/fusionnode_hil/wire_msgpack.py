"""The msgpack form of detections (ICD.md): one map a detection, or one map of columns a batch.

The values are those that the frames would carry, in SI: the form on the link changes no number. Whatever is
not a detection goes as a frame in every form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import msgpack
import numpy as np

from fusionnode_hil import wire

Form = Literal["frames", "msgpack", "columnar"]

MAX_ROWS = 400
"""Detections a batch: a document has to stay below 64 KiB."""

_BAM = 2.0 * math.pi / 2**32


def encode(messages: Sequence[wire.Message], form: Form) -> list[bytes]:
    """Messages as what is sent over ZeroMQ, one item a ZeroMQ message, in their order."""
    if form == "frames":
        return [wire.frame(message) for message in messages]
    if form == "msgpack":
        return [
            msgpack.packb(document(m)) if isinstance(m, wire.Radar | wire.Optical) else wire.frame(m)
            for m in messages
        ]
    out: list[bytes] = []
    for key, run in groupby(messages, _batch_key):
        batch = list(run)
        if key is None:
            out += [wire.frame(message) for message in batch]
        else:
            out += [_columns(batch[i : i + MAX_ROWS]) for i in range(0, len(batch), MAX_ROWS)]
    return out


def document(message: wire.Message) -> dict[str, Any]:
    """One detection as a map.

    Raises:
        TypeError: for a message that is not a detection.
    """
    if isinstance(message, wire.Radar):
        return _head(message, "radar") | _radar_values(message)
    if isinstance(message, wire.Optical):
        azel = message.coordinates == wire.AZEL
        return _head(message, "optical_azel" if azel else "optical_radec") | _optical_values(message)
    raise TypeError(f"{type(message).__name__} has no msgpack form")


def _head(message: wire.Message, kind: str) -> dict[str, Any]:
    return {
        "version": wire.VERSION,
        "type": kind,
        "sensor_id": message.sensor_id,
        "seq": message.seq,
        "flags": message.flags,
        "t_ns": message.t_ns,
    }


def _radar_values(m: wire.Radar) -> dict[str, float]:
    values: dict[str, float] = {}
    if m.valid & wire.VALID_RANGE:
        values |= {"range_m": m.range_mm * 1e-3, "range_sigma_m": m.range_sigma_mm * 1e-3}
    if m.valid & wire.VALID_ANGLES:
        values |= {"az_rad": m.az_bam32 * _BAM, "el_rad": m.el_bam32 * _BAM}
        values |= {"az_sigma_rad": m.az_sigma_nrad * 1e-9, "el_sigma_rad": m.el_sigma_nrad * 1e-9}
    if m.valid & wire.VALID_RANGE_RATE:
        values |= {"range_rate_m_s": m.range_rate_mm_s * 1e-3}
        values |= {"range_rate_sigma_m_s": m.range_rate_sigma_mm_s * 1e-3}
    if m.valid & wire.VALID_SNR:
        values["snr_db"] = m.snr_cdb * 0.01
    if m.valid & wire.VALID_RCS:
        values["rcs_dbsm"] = m.rcs_cdbsm * 0.01
    return values


def _optical_values(m: wire.Optical) -> dict[str, float]:
    lon, lat = ("az", "el") if m.coordinates == wire.AZEL else ("ra", "dec")
    values = {
        f"{lon}_rad": m.lon_bam32 * _BAM,
        f"{lat}_rad": m.lat_bam32 * _BAM,
        f"{lon}_sigma_rad": m.lon_sigma_nrad * 1e-9,
        f"{lat}_sigma_rad": m.lat_sigma_nrad * 1e-9,
    }
    if m.valid & wire.VALID_MAGNITUDE:
        values["magnitude"] = m.magnitude_mmag * 1e-3
    if m.exposure_us:
        values["exposure_s"] = m.exposure_us * 1e-6
    return values


def _batch_key(message: wire.Message) -> tuple[Any, ...] | None:
    """Detections with equal keys fit in one batch; None for what is not a detection."""
    if not isinstance(message, wire.Radar | wire.Optical):
        return None
    values = document(message)
    return (values["type"], message.sensor_id, message.flags, tuple(values))


def _columns(batch: Iterable[wire.Message]) -> bytes:
    rows = [document(message) for message in batch]
    head = {key: rows[0][key] for key in ("version", "type", "sensor_id", "flags")}
    head["seq"] = np.array([row["seq"] for row in rows], "<u4").tobytes()
    head["t_ns"] = np.array([row["t_ns"] for row in rows], "<i8").tobytes()
    values = [key for key in rows[0] if key not in head]
    columns = {key: np.array([row[key] for row in rows], "<f8").tobytes() for key in values}
    return bytes(msgpack.packb(head | columns))
