"""Take a sensor's known biases out of measurements, and put its true sigmas in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.refframes import EARTH_RATE_RAD_S
from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.filtering.sensing import COLUMNS, FIRST_COLUMN

F64 = npt.NDArray[np.float64]

_R, _V, _LOS, _E_LON, _E_LAT, _RHO, _RATE, _VAR = (FIRST_COLUMN + i for i in (0, 3, 6, 9, 12, 15, 16, 17))
_RANGE = int(Channel.RANGE)


@kernel
def _correct(z, t, channels, sensor, biases, scales, inertial):
    for i in range(z.shape[0]):
        s = sensor[i]
        for c in range(4):
            z[i, _VAR + c] *= scales[s, c] ** 2
        tau = biases[s, 3]
        if tau != 0.0:
            t[i] -= np.int64(np.round(tau * 1e9))
            angle = -EARTH_RATE_RAD_S * tau
            for at in (_R, _V, _LOS, _E_LON, _E_LAT):
                if inertial[s] and at >= _LOS:
                    break
                x, y = z[i, at], z[i, at + 1]
                z[i, at] = np.cos(angle) * x - np.sin(angle) * y
                z[i, at + 1] = np.sin(angle) * x + np.cos(angle) * y
        if channels[i] & _RANGE:
            z[i, _RHO] -= biases[s, 0]
        if biases[s, 1] == 0.0 and biases[s, 2] == 0.0:
            continue
        up = 0.0
        if inertial[s]:
            up = z[i, _LOS + 2]
        else:
            for k in range(3):
                up += z[i, _R + k] * z[i, _LOS + k]
            up /= np.sqrt(z[i, _R] ** 2 + z[i, _R + 1] ** 2 + z[i, _R + 2] ** 2)
        # lon and lat of the direction go down by the biases; e_lon, e_lat stay tangent to the new direction
        lon = -biases[s, 1] * np.sqrt(max(1.0 - up * up, 0.0))
        lat = -biases[s, 2]
        n_los, n_lon, n_lat = 0.0, 0.0, 0.0
        for k in range(3):
            u, e, n = z[i, _LOS + k], z[i, _E_LON + k], z[i, _E_LAT + k]
            z[i, _LOS + k] = u + lon * e + lat * n
            z[i, _E_LON + k] = e - lon * u
            z[i, _E_LAT + k] = n - lat * u
            n_los += z[i, _LOS + k] ** 2
        dot = 0.0
        for k in range(3):
            z[i, _LOS + k] /= np.sqrt(n_los)
        for k in range(3):
            dot += z[i, _E_LON + k] * z[i, _LOS + k]
        for k in range(3):
            z[i, _E_LON + k] -= dot * z[i, _LOS + k]
            n_lon += z[i, _E_LON + k] ** 2
        for k in range(3):
            z[i, _E_LON + k] /= np.sqrt(n_lon)
        # e_lat = los x e_lon, by the sense that it had
        a, b, c = z[i, _LOS], z[i, _LOS + 1], z[i, _LOS + 2]
        x, y, w = z[i, _E_LON], z[i, _E_LON + 1], z[i, _E_LON + 2]
        p0, p1, p2 = b * w - c * y, c * x - a * w, a * y - b * x
        n_lat = p0 * z[i, _E_LAT] + p1 * z[i, _E_LAT + 1] + p2 * z[i, _E_LAT + 2]
        sense = 1.0 if n_lat >= 0.0 else -1.0
        z[i, _E_LAT], z[i, _E_LAT + 1], z[i, _E_LAT + 2] = sense * p0, sense * p1, sense * p2


def corrected(
    measurements: StructArray, biases: F64, scales: F64, inertial: npt.NDArray[np.bool_]
) -> StructArray:
    """A copy of MEASUREMENT[n] with ``biases`` (S, 4: m, rad, rad, s; measured minus true) taken out and sigmas times
    ``scales`` (S, 4). With a time bias the site, and what turns with it, goes back by it as well."""
    out = np.array(measurements, MEASUREMENT)
    z = out.view(np.float64).reshape(len(out), COLUMNS)
    t = np.ascontiguousarray(out["t_meas_ns"])
    _correct(
        z,
        t,
        np.ascontiguousarray(out["channels"]),
        np.ascontiguousarray(out["sensor"]),
        biases,
        scales,
        inertial,
    )
    out["t_meas_ns"] = t
    return out


def uncorrected(z: F64, t_ns: int, sensor_biases: F64, inertial: bool) -> tuple[F64, int]:
    """One measurement, ``z`` (COLUMNS,) and its time, as it was before `corrected` took the biases (4,) out."""
    back, t = z.reshape(1, -1).copy(), np.array([t_ns])
    one = np.zeros(1, np.int32)
    _correct(
        back, t, np.full(1, _RANGE, np.uint8), one, -sensor_biases.reshape(1, 4), _ONES, np.array([inertial])
    )
    return back[0], int(t[0])


def rehearse() -> None:
    """Run the kernel here."""
    nothing = np.zeros(1, MEASUREMENT)
    nothing["los"][:, 0] = nothing["e_lon"][:, 1] = nothing["e_lat"][:, 2] = 1.0
    taken = corrected(nothing, np.zeros((1, 4)), _ONES, np.array([True]))
    uncorrected(taken.view(np.float64).reshape(1, COLUMNS)[0], 0, np.zeros(4), True)


_ONES = np.ones((1, 4))
