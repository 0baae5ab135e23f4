"""SGP4 mean elements by least squares on states.

The elements are fitted in a form that has no singular orbit but the exactly retrograde equatorial one: mean motion,
e cos(w + O), e sin(w + O), tan(i/2) cos O, tan(i/2) sin O, M + w + O (Vallado, Fundamentals of Astrodynamics, section
2.4.3, equinoctial elements). SGP4 with WGS 72 and bstar 0 is what they mean, so it is what is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from sgp4.api import WGS72, Satrec

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_minus_utc_s, uniform_jd
from fusionnode.release.exports.arcs import F64, I64

_MU = 3.986008e14  # WGS 72, as SGP4 has it
_MOST_STATES = 300
_JD_1949 = 2_433_281.5  # SGP4's epochs: days since 1949-12-31T00:00
_WORST_RMS_M = 5_000.0
_WORST_DAY_M = 500_000.0
_MODEL_M = 500.0
_DAY_S = 86_400.0


class NoElementsError(ValueError):
    """The states do not give elements that are worth the name; the text is one line."""


@dataclass(frozen=True)
class MeanElements:
    """TEME mean elements of SGP4 and how well they fit; rad, TAI ns."""

    epoch_ns: int
    revolutions_per_day: float
    eccentricity: float
    inclination_rad: float
    node_rad: float
    perigee_rad: float
    anomaly_rad: float
    states: int
    span_s: float
    rms_m: float
    """Weighted: a state that is wider than 500 m counts for less; so is ``rms_m_s``."""
    rms_m_s: float
    largest_m: float
    day_sigma_m: float
    """Along the orbit a day later, from the newest state's covariance alone."""

    def satrec(self) -> Satrec:
        """SGP4, ready to be asked."""
        return _satrec(
            self.epoch_ns, self.revolutions_per_day * 2 * math.pi / 1440.0, self.eccentricity,
            self.inclination_rad, self.node_rad, self.perigee_rad, self.anomaly_rad,
        )  # fmt: skip


def fit(t_ns: I64, x: F64, P: F64, orientation: EarthOrientation) -> MeanElements:
    """Elements at the newest of states (n,), (n, 6), (n, 6, 6): TAI ns, SI, GCRF.

    Raises:
        NoElementsError: fewer than two states, no ellipse, or SGP4 does not follow them within 5 km rms.
    """
    if len(t_ns) < 2:
        raise NoElementsError("one state alone: it takes an arc")
    keep = np.unique(np.linspace(0, len(t_ns) - 1, min(len(t_ns), _MOST_STATES)).round().astype(int))
    t, states = t_ns[keep], x[keep]
    turn = orientation.teme_to_gcrf(t).transpose(0, 2, 1)
    r = np.einsum("nij,nj->ni", turn, states[:, :3])
    v = np.einsum("nij,nj->ni", turn, states[:, 3:])
    epoch_ns = int(t[-1])
    start = _osculating(r[-1], v[-1])
    per_s = 1.0 / start[0] * 60.0  # rad/min: a velocity weighs as what it does in a radian of the orbit
    minutes = (t - epoch_ns) / 60e9
    # A filter's early states are wide; and nothing weighs more than SGP4 itself is good for.
    wide = np.sqrt(np.trace(P[keep][:, :3, :3], axis1=1, axis2=2) / 3.0)
    weight = 1.0 / np.hypot(wide / _MODEL_M, 1.0)[:, None]
    day_sigma_m = _day_sigma_m(x[-1], P[-1])
    if day_sigma_m > _WORST_DAY_M:
        raise NoElementsError(
            f"the states leave the period open: {day_sigma_m / 1e3:.0f} km along the orbit after a day"
        )

    def residuals(p: F64) -> F64:
        satrec = _from_equinoctial(epoch_ns, p)
        if satrec is None:
            return np.full(6 * len(t), 1e9)
        out = np.empty((len(t), 6))
        for i, minute in enumerate(minutes.tolist()):
            code, at, speed = satrec.sgp4_tsince(minute)
            if code:
                return np.full(6 * len(t), 1e9)
            out[i, :3] = np.array(at) * 1e3 - r[i]
            out[i, 3:] = (np.array(speed) * 1e3 - v[i]) * per_s
        return np.asarray((out * weight).ravel())

    found = least_squares(residuals, start, x_scale=[start[0] * 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4], xtol=1e-13,
                          ftol=1e-12, gtol=1e-15, max_nfev=60)  # fmt: skip
    if found.fun[0] == 1e9:
        raise NoElementsError("SGP4 has no such orbit (has it decayed?)")
    left = found.fun.reshape(-1, 6) / weight
    share = weight[:, 0] ** 2 / (weight**2).sum()
    rms = math.sqrt(float((left[:, :3] ** 2).sum(axis=1) @ share))
    rms_v = math.sqrt(float((left[:, 3:] ** 2).sum(axis=1) @ share)) / per_s
    if not math.isfinite(rms) or rms > _WORST_RMS_M:
        raise NoElementsError(f"SGP4 does not follow the states: {rms / 1e3:.1f} km rms (manoeuvre? decay?)")
    motion, eccentricity, inclination, node, perigee, anomaly = _classical(found.x)
    return MeanElements(
        epoch_ns=epoch_ns,
        revolutions_per_day=motion * 1440.0 / (2 * math.pi),
        eccentricity=eccentricity,
        inclination_rad=inclination,
        node_rad=node,
        perigee_rad=perigee,
        anomaly_rad=anomaly,
        states=len(t),
        span_s=float(t_ns[-1] - t_ns[0]) / 1e9,
        rms_m=rms,
        rms_m_s=rms_v,
        largest_m=float(np.sqrt((left[:, :3] ** 2).sum(axis=1)).max()),
        day_sigma_m=day_sigma_m,
    )


def _day_sigma_m(x: F64, P: F64) -> float:
    """One sigma along the orbit a day later: 3 v/(2a) t sigma(a), with a from the vis-viva equation."""
    r, v = float(np.linalg.norm(x[:3])), float(np.linalg.norm(x[3:]))
    a = 1.0 / (2.0 / r - v * v / _MU)
    slope = np.concatenate([2.0 * a * a * x[:3] / r**3, 2.0 * a * a * x[3:] / _MU])
    sigma_a = math.sqrt(max(float(slope @ P @ slope), 0.0))
    return 1.5 * math.sqrt(_MU / a**3) * _DAY_S * sigma_a


def _osculating(r: F64, v: F64) -> F64:
    """The fit's parameters of the osculating orbit, mean motion in rad/min."""
    h = np.cross(r, v)
    w = h / np.linalg.norm(h)
    a = 1.0 / (2.0 / np.linalg.norm(r) - v @ v / _MU)
    if not math.isfinite(a) or a <= 0.0:
        raise NoElementsError("the newest state is on no ellipse")
    e_vector = np.cross(v, h) / _MU - r / np.linalg.norm(r)
    p, q = w[0] / (1.0 + w[2]), -w[1] / (1.0 + w[2])  # tan(i/2) sin O, tan(i/2) cos O
    scale = 1.0 / (1.0 + p * p + q * q)
    f = scale * np.array([1.0 - p * p + q * q, 2.0 * p * q, -2.0 * p])
    g = scale * np.array([2.0 * p * q, 1.0 + p * p - q * q, 2.0 * q])
    k, e_sin = float(e_vector @ f), float(e_vector @ g)
    eccentricity = math.hypot(k, e_sin)
    if eccentricity >= 1.0:
        raise NoElementsError("the newest state is on no ellipse")
    longitude = math.atan2(float(r @ g), float(r @ f))
    turn = math.atan2(e_sin, k)
    true = longitude - turn
    eccentric = 2.0 * math.atan2(
        math.sqrt(1.0 - eccentricity) * math.sin(true / 2.0),
        math.sqrt(1.0 + eccentricity) * math.cos(true / 2.0),
    )
    mean = eccentric - eccentricity * math.sin(eccentric) + turn
    return np.array([math.sqrt(_MU / a**3) * 60.0, k, e_sin, q, p, mean])


def _classical(p: F64) -> tuple[float, float, float, float, float, float]:
    motion, k, h, q, s, longitude = p.tolist()
    node = math.atan2(s, q)
    turn = math.atan2(h, k)
    full = 2.0 * math.pi
    return (
        motion, math.hypot(k, h), 2.0 * math.atan(math.hypot(q, s)), node % full, (turn - node) % full,
        (longitude - turn) % full,
    )  # fmt: skip


def _from_equinoctial(epoch_ns: int, p: F64) -> Satrec | None:
    motion, eccentricity, *rest = _classical(p)
    if not 0.0 < motion < 1.0 or eccentricity >= 0.999:
        return None
    return _satrec(epoch_ns, motion, eccentricity, *rest)


def _satrec(
    epoch_ns: int,
    motion: float,
    eccentricity: float,
    inclination: float,
    node: float,
    perigee: float,
    mean: float,
) -> Satrec:
    day, fraction = uniform_jd(epoch_ns, int(tai_minus_utc_s(epoch_ns)))
    out = Satrec()
    out.sgp4init(
        WGS72, "i", 0, (day - _JD_1949) + fraction, 0.0, 0.0, 0.0, eccentricity, perigee, inclination, mean, motion,
        node,
    )  # fmt: skip
    return out
