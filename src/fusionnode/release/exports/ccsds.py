"""OEM, OPM, OCM, OMM and TDM through ccsds-ndm-py (CCSDS 502.0-B-3 and 503.0-B-2), as keyword=value text.

States are the filter's, at the times of their updates: each is its own best estimate, and neighbours differ by what
a measurement said. So no interpolation is declared, and what lies more than 180 s apart is in segments of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ccsds_ndm as ndm
import numpy as np
from ccsds_ndm.ccsds_ndm import TleParameters

from fusionnode.core.types import Channel, StructArray
from fusionnode.release.exports.arcs import F64, Arc, Markings, epoch, in_rtn, names, plain
from fusionnode.release.exports.elements import MeanElements

_FRAME = "GCRF"
_LOWER = np.tril_indices(6)
_RAD = 180.0 / np.pi


def oem(arc: Arc, markings: Markings, created_ns: int) -> str:
    """An ephemeris: every state with its covariance, km and km/s, GCRF, UTC."""
    segments = []
    for piece in arc.pieces():
        times = [epoch(t) for t in arc.t_ns[piece].tolist()]
        metadata = ndm.OemMetadata(
            plain(arc.name), plain(arc.object_id), times[0], times[-1], center_name="EARTH", ref_frame=_FRAME,
            time_system="UTC", comment=_about(arc, markings),
        )  # fmt: skip
        vectors = [
            ndm.StateVectorAcc(t, *row) for t, row in zip(times, (arc.x[piece] / 1e3).tolist(), strict=True)
        ]
        lower = arc.P[piece][:, _LOWER[0], _LOWER[1]] / 1e6
        covariances = [
            ndm.OemCovarianceMatrix(t, row, _FRAME, []) for t, row in zip(times, lower, strict=True)
        ]
        comment = [f"Filtered states, sensors: {plain(_sensors(arc, piece))}"]
        segments.append(ndm.OemSegment(metadata, ndm.OemData(vectors, covariances, comment)))
    return str(ndm.Oem(_header(arc, markings, created_ns), segments).to_str("kvn"))


def opm(arc: Arc, markings: Markings, created_ns: int) -> str:
    """The newest state with its covariance in RTN: what one object's half of a CDM is made from."""
    x, P = arc.x[-1:], arc.P[-1:]
    lower = in_rtn(x, P)[0][_LOWER] / 1e6
    metadata = ndm.OpmMetadata(
        plain(arc.name), plain(arc.object_id), center_name="EARTH", ref_frame=_FRAME, time_system="UTC",
        comment=_about(arc, markings),
    )  # fmt: skip
    data = ndm.OpmData(
        ndm.StateVector(epoch(int(arc.t_ns[-1])), *(x[0] / 1e3).tolist()),
        ["State as filtered; covariance along RTN axes taken as not turning"],
    )
    fields = dict(zip(_OPM_NAMES, lower.tolist(), strict=True))
    data.covariance_matrix = ndm.OpmCovarianceMatrix(**fields, cov_ref_frame="RTN", comments=[])
    data.user_defined_parameters = ndm.UserDefined(parameters=_user(arc, markings), comment=[])
    return str(ndm.Opm(_header(arc, markings, created_ns), ndm.OpmSegment(metadata, data)).to_str("kvn"))


def ocm(arc: Arc, markings: Markings, created_ns: int) -> str:
    """All states, covariances and manoeuvres that were told, in one comprehensive message."""
    data = ndm.OcmData()
    trajectories, covariances = [], []
    for n, piece in enumerate(arc.pieces(), 1):
        times = [epoch(t) for t in arc.t_ns[piece].tolist()]
        rows = (arc.x[piece] / 1e3).tolist()
        lower = (arc.P[piece][:, _LOWER[0], _LOWER[1]] / 1e6).tolist()
        trajectories.append(
            ndm.OcmTrajState(
                center_name="EARTH", traj_ref_frame=_FRAME, traj_type="CARTPV", traj_id=f"T{n}",
                traj_lines=[ndm.TrajLine(epoch=t, values=row) for t, row in zip(times, rows, strict=True)],
                traj_units="[km,km,km,km/s,km/s,km/s]",
            )
        )  # fmt: skip
        covariances.append(
            ndm.OcmCovarianceMatrix(
                cov_ref_frame=_FRAME, cov_type="CARTPV", cov_ordering="LTM", cov_id=f"C{n}",
                cov_lines=[ndm.CovLine(epoch=t, values=row) for t, row in zip(times, lower, strict=True)],
            )
        )  # fmt: skip
    data.traj, data.cov = trajectories, covariances
    data.man = [
        ndm.OcmManeuverParameters(
            man_id=f"M{n}", man_device_id="UNKNOWN", man_composition="TIME_ABSOLUTE,DV_X,DV_Y,DV_Z",
            man_ref_frame=_FRAME, man_units="[km/s,km/s,km/s]",
            man_lines=[
                ndm.ManLine(
                    epoch=str(event["epoch"]).removesuffix("Z"), values=[repr(float(v)) for v in event["deltaV"]]
                )
            ],
            comment=[_manoeuvre(event)],
        )
        for n, event in enumerate(_manoeuvres(arc), 1)
    ]  # fmt: skip
    data.user = ndm.UserDefined(parameters=_user(arc, markings), comment=[])
    metadata = ndm.OcmMetadata(
        epoch_tzero=epoch(int(arc.t_ns[0])), time_system="UTC", object_name=plain(arc.name),
        object_designator=plain(arc.object_id) if arc.sat_no is None else str(arc.sat_no),
        start_time=epoch(int(arc.t_ns[0])), stop_time=epoch(int(arc.t_ns[-1])),
        comment=_about(arc, markings),
    )  # fmt: skip
    return str(ndm.Ocm(_header(arc, markings, created_ns), ndm.OcmSegment(metadata, data)).to_str("kvn"))


def omm(arc: Arc, elements: MeanElements, markings: Markings, created_ns: int) -> str:
    """SGP4 mean elements that were fitted to the states; how well is in the comments."""
    mean = ndm.MeanElements(
        epoch(elements.epoch_ns), elements.eccentricity, elements.inclination_rad * _RAD,
        elements.node_rad * _RAD, elements.perigee_rad * _RAD, elements.anomaly_rad * _RAD,
        mean_motion=elements.revolutions_per_day,
    )  # fmt: skip
    fit = [
        f"SGP4 (WGS 72) elements by least squares on {elements.states} states over {elements.span_s / 3600:.3f} h",
        f"Fit, weighted: rms {elements.rms_m:.1f} m in position, {elements.rms_m_s:.4f} m/s in velocity, largest "
        f"{elements.largest_m:.1f} m",
        f"Standard deviation of what the states say of it a day after: {elements.day_sigma_m:.0f} m",
        "BSTAR was not estimated",
    ]
    data = ndm.OmmData(mean, fit)
    data.tle_parameters = TleParameters(
        mean_motion_dot=0.0, ephemeris_type=0, classification_type=plain(markings.classification)[:1],
        norad_cat_id=arc.sat_no or 0,
        element_set_no=999, rev_at_epoch=0, bstar=0.0, mean_motion_ddot=0.0,
    )  # fmt: skip
    data.user_defined_parameters = ndm.UserDefined(parameters=_user(arc, markings), comment=[])
    metadata = ndm.OmmMetadata(
        plain(arc.name), plain(arc.object_id), center_name="EARTH", ref_frame="TEME", time_system="UTC",
        mean_element_theory="SGP4", comment=_about(arc, markings),
    )  # fmt: skip
    return str(ndm.Omm(_header(arc, markings, created_ns), ndm.OmmSegment(metadata, data)).to_str("kvn"))


def tdm(taken: Sequence[tuple[Arc, str, StructArray]], markings: Markings, created_ns: int) -> str:
    """Measurements that updated tracks: one segment for each track and sensor.

    Args:
        taken: track, sensor's name, MEASUREMENT[n] in order of time.
    """
    segments = []
    for arc, sensor, rows in taken:
        ranges = bool((rows["channels"] & (Channel.RANGE | Channel.RANGE_RATE)).any())
        seen = bool(rows["target_delay"][0] > 0.0)
        observations = []
        for row in rows:
            observations += _observations(row)
        about = [
            f"Track {plain(arc.track_id)}, sensor {plain(sensor)}: measurements that updated the track, not those "
            "that began it",
            "As the node used them: calibrated biases are taken off, refraction too where the sensor has it",
            "Angles: topocentric right ascension and declination, degrees, axes of ICRF",
            "Time tag: " + ("receive; the target is seen one light time before" if seen else "at the target"),
        ]
        if ranges:
            about.append(
                "Ranges are one way, km; Doppler is the range rate one way, km/s, positive: going away"
            )
        fields: dict[str, Any] = {"path": "2,1"}
        if ranges:
            fields = {"path": "1,2,1", "range_mode": "CONSTANT", "range_units": "km"}
        metadata = ndm.TdmMetadata(
            participant_1=plain(sensor), participant_2=plain(arc.object_id), time_system="UTC", mode="SEQUENTIAL",
            track_id=plain(arc.track_id), timetag_ref="RECEIVE", angle_type="RADEC", reference_frame="ICRF",
            start_time=epoch(int(rows["t_meas_ns"][0])), stop_time=epoch(int(rows["t_meas_ns"][-1])),
            comment=[*about, *map(plain, markings.lines())], **fields,
        )  # fmt: skip
        segments.append(ndm.TdmSegment(metadata=metadata, data=ndm.TdmData(observations, [])))
    header = ndm.TdmHeader(
        originator=plain(markings.originator), creation_date=epoch(created_ns)[:19],
        message_id=f"{plain(markings.originator)}-TDM-{created_ns}", comment=[plain(t) for t in markings.lines()],
    )  # fmt: skip
    return str(ndm.Tdm(header=header, body=ndm.TdmBody(segments=segments)).to_str("kvn"))


_OPM_NAMES = [
    f"c{a}_{b}"
    for i, a in enumerate(("x", "y", "z", "x_dot", "y_dot", "z_dot"))
    for b in ("x", "y", "z", "x_dot", "y_dot", "z_dot")[: i + 1]
]


def _observations(row: Any) -> list[Any]:
    t = epoch(int(row["t_meas_ns"]))
    channels = int(row["channels"])
    out = []
    if channels & Channel.RANGE:
        out.append(("RANGE", float(row["range_m"]) / 1e3))
    if channels & Channel.ANGLES:
        x, y, z = row["los"].tolist()
        out.append(("ANGLE_1", float(np.arctan2(y, x) * _RAD % 360.0)))
        out.append(("ANGLE_2", float(np.arctan2(z, np.hypot(x, y)) * _RAD)))
    if channels & Channel.RANGE_RATE:
        out.append(("DOPPLER_INSTANTANEOUS", float(row["range_rate_m_s"]) / 1e3))
    return [ndm.TdmObservation(epoch=t, keyword=keyword, value=value) for keyword, value in out]


def _header(arc: Arc, markings: Markings, created_ns: int) -> Any:
    return ndm.OdmHeader(
        epoch(created_ns)[:19],
        plain(markings.originator),
        classification=plain(markings.classification),
        message_id=plain(f"{arc.track_id}-{created_ns}"),
        comment=[plain(t) for t in markings.lines()],
    )


def _about(arc: Arc, markings: Markings) -> list[str]:
    number = "none (uncorrelated)" if arc.sat_no is None else str(arc.sat_no)
    return [
        plain(f"Track {arc.track_id}, catalogue number {number}, {len(arc.t_ns)} states"),
        plain(f"{markings.classification}, releasable to: {_to(markings)}"),
    ]


def _to(markings: Markings) -> str:
    return "not marked for release" if markings.releasable_to is None else names(markings.releasable_to)


def _user(arc: Arc, markings: Markings) -> dict[str, str]:
    return {
        "CLASSIFICATION_MARKING": plain(markings.classification),
        "RELEASABLE_TO": plain(_to(markings)),
        "SOURCE": plain(markings.source),
        "DATA_MODE": plain(markings.data_mode),
        "TRACK_ID": plain(arc.track_id),
    }


def _sensors(arc: Arc, piece: slice) -> str:
    found: dict[str, None] = {}
    for body in arc.bodies[piece]:
        found.update(dict.fromkeys(body.get("sensors") or []))
    return names(list(found)) or "not told"


def _manoeuvres(arc: Arc) -> list[Any]:
    return [e for e in arc.events if e.get("deltaV") and e.get("epoch")]


def _manoeuvre(event: Any) -> str:
    return plain(
        f"{event.get('event')} told at {event.get('time')}, between {event.get('epochFrom') or 'unknown'} and "
        f"{event.get('epochTo') or 'unknown'}, sigma {event.get('deltaVSigma') or 'unknown'} km/s"
    )


def matrix(lower: Sequence[float]) -> F64:
    """6 x 6 from a lower triangle of 21, row by row."""
    out = np.zeros((6, 6))
    out[_LOWER] = lower
    return out + np.tril(out, -1).T
