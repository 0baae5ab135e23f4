"""States that are off on purpose, so that nothing a partner can compute makes them better than stated.

Noise and rounding average away. So the offset of an object is constant, keyed, and a symmetry of the motion itself: as
the Earth-fixed frame has it, the published trajectory is the object's own, a moment earlier or later. Gravity of
whatever degree, and air that turns with the Earth, do not change with time in that frame. So what is published obeys
the same dynamics, and a fit finds nothing in it, not even one that solves for the shift: only what Sun and Moon do in
that moment, a millionth of the offset in a day of a low orbit. A turn about the Earth's axis would show a hundred times
as much, by the Earth's longitudes (measured: docs/RELEASE.md). What nearly stands still over the Earth would not be
moved in its frame: there it is time alone that is shifted, in the frame that does not turn.

The offset of level k, in metres along the track, rms over a revolution, is a sum of steps

    O(k) = D(0) + ... + D(k),   |D(j)| = 2.42 g(j),   g(j) = 10 ** (j / 2 - 2) m

whose signs are drawn by HMAC-SHA256 of the node's key and the object's, each for itself. Each step is longer than all
finer ones together can undo: 1.3 g(k) <= |O(k)| <= 3.54 g(k), for every key. And since the steps are independent, who
gets level k and coarser ones learns of O(k) nothing from the coarser ones. Steps finer than a ratio of 2 could not have
both properties: an offset that has to stay in a ring of a size says, by its difference to the next one, where in its
own ring it is. The square root of 10 keeps the rings narrow, and decades on the grid.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MU = 3.986004418e14
"""m^3/s^2 (WGS 84)."""
EARTH_RADIUS_M = 6_378_137.0
J2 = 1.0826267e-3
LEVELS = 15
"""Level 0: an offset for a precision of 1 cm; the highest is for 100 km."""
EXACT = -1
"""The level of states as they are."""
LEAST = 1.3
_RATIO = math.sqrt(10.0)
_STEP = LEAST / (1.0 - 1.0 / (_RATIO - 1.0))
_HOVERING = 0.25
"""Orbits that are slower over the Earth than this share (keyed: up to 0.1 more) of their speed nearly stand still."""
_EARTH_RAD_S = 7.292115e-5
_LEAST_GAIN, _MOST_GAIN = 1.05 / LEAST, 4.0
"""An offset is drawn anew when the orbit has become another one, on which it makes less or far more than it should."""
_CELL_LN_A, _CELL_INCLINATION, _CELL_E = 0.04, math.radians(2.0), 0.05
_RK4_S = 10.0
_PRECESSION_PER_S = math.radians(2004.191898 / 3600.0) / (36_525.0 * 86_400.0)
"""Of the celestial pole's x (Capitaine et al. 2003, Astronomy & Astrophysics 412, 567)."""
_J2000_NS = 946_728_000 * 1_000_000_000
_MOST_KEPT = 300_000


def level_of(precision_m: float) -> int:
    """The coarsest needed: the first level whose ``g`` is not below ``precision_m``; `EXACT` for 0.

    Raises:
        ValueError: coarser than the highest level.
    """
    if precision_m <= 0.0:
        return EXACT
    level = max(0, math.ceil(2.0 * math.log10(precision_m) + 4.0 - 1e-9))
    if level >= LEVELS:
        raise ValueError(f"expected at most {size_m(LEVELS - 1):g} m (is {precision_m:g})")
    return level


def size_m(level: int) -> float:
    """``g`` of a level, m."""
    return float(10.0 ** (level / 2.0 - 2.0)) if level >= 0 else 0.0


def sigma_m(level: int) -> float:
    """Standard deviation over all keys of a level's offset, m rms of a revolution."""
    return math.sqrt(sum((_STEP * size_m(j)) ** 2 for j in range(level + 1)))


class Offset(NamedTuple):
    """How one object's states are moved: by ``gain`` O(k) seconds, and (``fixed``) with the Earth as it turns then."""

    key: str
    generation: int
    fixed: bool
    gain: float  # s/m
    signs: tuple[float, ...]  # of the D(j)


class Offsets:
    """The offsets of all objects, and which track goes by which object's.

    Args:
        key: the node's secret key; whoever has it can take offsets off again.
        lineage: what tells the track numbers of one life of a node from those of another.

    An object's offset stays as it was drawn first, whatever becomes of its orbit short of becoming quite another.
    It goes by the catalogue number that a track had when it was first seen here, else by the track.
    """

    def __init__(self, key: bytes, lineage: str) -> None:
        if len(key) < 16:
            raise ValueError("the offset key: expected at least 16 bytes")
        self._key = key
        self.lineage = lineage
        self._key_of_track: dict[int, str] = {}
        self._by_key: dict[str, Offset] = {}

    def identity(self, group: str, track: int) -> str:
        """A name for a track, stable for its life and another one in each group; it counts nothing."""
        return self._mac(f"id|{self.lineage}|{group}|{track}").hex()[:16]

    def apply(
        self,
        level: int,
        tracks: I64,
        sat_no: I64,
        epoch_ns: I64,
        x: F64,
        P: F64,
        settled: npt.NDArray[np.bool_],
    ) -> tuple[F64, F64, list[Offset]]:
        """States and covariances as they go out, and the offsets that were used.

        Args:
            level: of `level_of`, not `EXACT`.
            tracks, sat_no, epoch_ns: (n,); ``sat_no`` 0 for none; TAI ns.
            x, P: (n, 6), (n, 6, 6): SI, GCRF.
            settled: (n,) whether a state is good enough to tell that an orbit has become another.
        """
        used = self.of(tracks, sat_no, epoch_ns, x, settled)
        dt = np.array([shift_s(o, level) for o in used])
        spin = np.array([-_EARTH_RAD_S if o.fixed else 0.0 for o in used])
        sigma_s = np.array([o.gain for o in used]) * sigma_m(level)
        pole = _pole(epoch_ns)
        y, phi = _flow(x, dt, pole)
        turn = _rotation(pole, spin * dt)
        y = np.concatenate([_times(turn, y[:, :3]), _times(turn, y[:, 3:])], axis=1)
        both = np.zeros((len(x), 6, 6))
        both[:, :3, :3] = both[:, 3:, 3:] = turn
        phi = both @ phi
        later = np.concatenate([y[:, 3:], _acceleration(y[:, :3], pole)], axis=1)
        turned = np.concatenate([np.cross(pole, y[:, :3]), np.cross(pole, y[:, 3:])], axis=1)
        J = (later + spin[:, None] * turned) * sigma_s[:, None]
        cov = phi @ P @ phi.transpose(0, 2, 1) + J[:, :, None] * J[:, None, :]
        return y, 0.5 * (cov + cov.transpose(0, 2, 1)), used

    def of(
        self, tracks: I64, sat_no: I64, epoch_ns: I64, x: F64, settled: npt.NDArray[np.bool_]
    ) -> list[Offset]:
        """The offset of each state's object, drawn now if it has none."""
        a, e, inclination = _elements(x, _pole(epoch_ns))
        bound = np.isfinite(a) & (a > 0.0) & (e < 0.999)
        used = []
        for i, (track, number) in enumerate(zip(tracks.tolist(), sat_no.tolist(), strict=True)):
            key = self._key_of_track.get(track)
            if key is None:
                key = f"sat:{number}" if number > 0 else f"track:{self.lineage}:{track}"
                self._key_of_track[track] = key
            orbit = (
                (float(a[i]), float(e[i]), float(inclination[i])) if bound[i] else (_norm(x[i, :3]), 0.0, 1.0)
            )
            o = self._by_key.get(key)
            if o is None or (settled[i] and bound[i] and _outgrown(o, *orbit)):
                o = self._draw(key, 0 if o is None else o.generation + 1, *orbit)
                self._keep(o)
            used.append(o)
        return used

    def forget(self, track: int) -> None:
        """A track has ended; its number will not come again."""
        key = self._key_of_track.pop(track, "")
        if key.startswith("track:"):
            self._by_key.pop(key, None)

    def export(self) -> dict[str, Any]:
        """What has to outlive the node: plain values."""
        return {
            "lineage": self.lineage,
            "tracks": {str(track): key for track, key in self._key_of_track.items()},
            "offsets": [list(o[:-1]) for o in self._by_key.values()],
        }

    def take_up(self, kept: dict[str, Any]) -> None:
        """Go on from `export` of another run.

        Raises:
            ValueError: it is none.
        """
        try:
            self.lineage = str(kept["lineage"])
            self._key_of_track = {int(track): str(key) for track, key in kept["tracks"].items()}
            for key, generation, fixed, gain in kept["offsets"]:
                signs = self._signs(str(key), int(generation))
                self._keep(Offset(str(key), int(generation), bool(fixed), float(gain), signs))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not what a node keeps of its offsets: {error!r}") from None

    def _keep(self, o: Offset) -> None:
        self._by_key[o.key] = o
        if len(self._by_key) > _MOST_KEPT:
            del self._by_key[next(iter(self._by_key))]

    def _draw(self, key: str, generation: int, a: float, e: float, inclination: float) -> Offset:
        # The elements of a first state are noisy. On a grid they are the same ones if the object is met anew by
        # a node that has lost its memory; the grid's place is keyed, so that hardly any object lies on an edge.
        phase = [self._unit(f"cell|{key}|{j}") for j in range(4)]
        a = math.exp(_middle(math.log(a), _CELL_LN_A, phase[0]))
        inclination = min(max(_middle(inclination, _CELL_INCLINATION, phase[1]), 0.0), math.pi)
        e = min(max(_middle(e, _CELL_E, phase[2]), 0.0), 0.97)
        fixed = _over_ground(a, e, inclination) > (_HOVERING + 0.1 * phase[3]) * math.sqrt(MU / a)
        gain = 1.0 / _speed(fixed, a, e, inclination)
        return Offset(key, generation, fixed, gain, self._signs(key, generation))

    def _signs(self, key: str, generation: int) -> tuple[float, ...]:
        drawn = [self._mac(f"step|{key}|{generation}|{j}")[0] & 1 for j in range(LEVELS)]
        return tuple(1.0 if bit else -1.0 for bit in drawn)

    def _unit(self, label: str) -> float:
        """In [0, 1)."""
        return int.from_bytes(self._mac(label)[:7], "big") / float(1 << 56)

    def _mac(self, label: str) -> bytes:
        return hmac.digest(self._key, label.encode(), hashlib.sha256)


def offset_m(o: Offset, level: int) -> float:
    """``O(level)``, m rms of a revolution."""
    return sum(o.signs[j] * _STEP * size_m(j) for j in range(level + 1))


def shift_s(o: Offset, level: int) -> float:
    """By how much earlier the published trajectory is where the object itself will be, s."""
    return o.gain * offset_m(o, level)


def turned(o: Offset, level: int, t_ns: int, v: Sequence[float]) -> tuple[float, float, float]:
    """A vector of the object's own (GCRF) as the published trajectory has it at TAI ``t_ns``."""
    if not o.fixed:
        return v[0], v[1], v[2]
    turn = _rotation(_pole(np.array([t_ns])), np.array([-_EARTH_RAD_S * shift_s(o, level)]))
    x, y, z = _times(turn, np.array([v], float))[0].tolist()
    return x, y, z


def _middle(value: float, width: float, phase: float) -> float:
    return (math.floor(value / width + phase) + 0.5 - phase) * width


def _over_ground(a: float, e: float, inclination: float) -> float:
    """Speed in the Earth-fixed frame, m/s rms of a revolution (the mean over all arguments of perigee)."""
    momentum = math.sqrt(MU * a * (1.0 - e * e)) * math.cos(inclination)
    across2 = a * a * (1.0 + 1.5 * e * e) * (1.0 - 0.5 * math.sin(inclination) ** 2)
    return math.sqrt(max(MU / a - 2.0 * _EARTH_RAD_S * momentum + _EARTH_RAD_S**2 * across2, 0.0))


def _speed(fixed: bool, a: float, e: float, inclination: float) -> float:
    """What a second's shift makes, m/s rms of a revolution; without the Earth by the virial theorem."""
    return _over_ground(a, e, inclination) if fixed else math.sqrt(MU / a)


def _outgrown(o: Offset, a: float, e: float, inclination: float) -> bool:
    """Whether the offset moves an object on this orbit by too little, or by far too much."""
    return not _LEAST_GAIN < _speed(o.fixed, a, e, inclination) * o.gain < _MOST_GAIN


def _norm(v: F64) -> float:
    return float(math.sqrt(float(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])))


def _pole(t_ns: I64) -> F64:
    """(n, 3) the Earth's axis in GCRF, without nutation."""
    lean = (np.asarray(t_ns, np.int64) - _J2000_NS) * 1e-9 * _PRECESSION_PER_S
    return np.stack([np.sin(lean), np.zeros(len(lean)), np.cos(lean)], axis=1)


def _elements(x: F64, pole: F64) -> tuple[F64, F64, F64]:
    """Semi-major axis (m), eccentricity, and inclination to the equator (rad) of states (n, 6)."""
    r, v = x[:, :3], x[:, 3:]
    h = np.cross(r, v)
    with np.errstate(all="ignore"):
        distance = np.sqrt((r * r).sum(axis=1))
        a = 1.0 / (2.0 / distance - (v * v).sum(axis=1) / MU)
        e = np.sqrt(np.maximum(1.0 - (h * h).sum(axis=1) / (MU * a), 0.0))
        cosine = (h * pole).sum(axis=1) / np.sqrt((h * h).sum(axis=1))
    return a, e, np.arccos(np.clip(cosine, -1.0, 1.0))


def _acceleration(r: F64, pole: F64) -> F64:
    """(n, 3) of the Earth's mass and its J2, m/s^2 (Montenbruck & Gill, Satellite Orbits, section 3.2)."""
    r2 = (r * r).sum(axis=1)[:, None]
    z = (r * pole).sum(axis=1)[:, None]
    near = 1.5 * J2 * EARTH_RADIUS_M**2 / r2
    return np.asarray(
        -MU / (r2 * np.sqrt(r2)) * (r * (1.0 + near * (1.0 - 5.0 * z * z / r2)) + 2.0 * near * z * pole)
    )


def _flow(x: F64, dt: F64, pole: F64) -> tuple[F64, F64]:
    """States ``dt`` (n,) s later (RK4, a fixed number of steps a lane), and the transition (n, 6, 6) of two bodies, to
    the third order in ``dt`` about the middle.
    """
    r, v = x[:, :3].copy(), x[:, 3:].copy()
    count = np.maximum(np.ceil(np.abs(dt) / _RK4_S), 1.0).astype(np.int64)
    h = (dt / count)[:, None]
    for step in range(int(count.max(initial=0))):
        on = (count > step)[:, None]
        k1v = _acceleration(r, pole)
        k2r, k2v = v + 0.5 * h * k1v, _acceleration(r + 0.5 * h * v, pole)
        k3r, k3v = v + 0.5 * h * k2v, _acceleration(r + 0.5 * h * k2r, pole)
        k4r, k4v = v + h * k3v, _acceleration(r + h * k3r, pole)
        r = np.where(on, r + h / 6.0 * (v + 2.0 * k2r + 2.0 * k3r + k4r), r)
        v = np.where(on, v + h / 6.0 * (k1v + 2.0 * k2v + 2.0 * k3v + k4v), v)
    middle = 0.5 * (x[:, :3] + r)
    d2 = (middle * middle).sum(axis=1)[:, None, None]
    eye = np.eye(3)
    G = MU / (d2 * np.sqrt(d2)) * (3.0 * middle[:, :, None] * middle[:, None, :] / d2 - eye)
    t = dt[:, None, None]
    phi = np.empty((len(x), 6, 6))
    phi[:, :3, :3] = phi[:, 3:, 3:] = eye + 0.5 * t * t * G
    phi[:, :3, 3:] = t * eye + t**3 / 6.0 * G
    phi[:, 3:, :3] = t * G
    return np.concatenate([r, v], axis=1), phi


def _rotation(axis: F64, angle: F64) -> F64:
    """(n, 3, 3) by ``angle`` about the unit vectors ``axis`` (Rodrigues)."""
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    k = np.zeros((len(axis), 3, 3))
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    k -= k.transpose(0, 2, 1)
    return np.asarray(np.eye(3) * c + s * k + (1.0 - c) * axis[:, :, None] * axis[:, None, :])


def _times(m: F64, v: F64) -> F64:
    return np.asarray((m * v[:, None, :]).sum(axis=2))
