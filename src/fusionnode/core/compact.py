"""Compact records: a state as an array of whole numbers on a grid that is fine against its own uncertainty.

For thin links. The form is written down in docs/WIRE.md ("Compact records"). Standard library and msgpack only.

State and covariance lie on one grid. With P = G G' (Cholesky) and c_i the standard deviation of component i when the
others are known, c_i^-2 = (P^-1)_ii (Anderson, *Introduction to Multivariate Statistical Analysis*, 2.5), the step is
at most c_i / 20: rounding adds at most 6 / (12 * 400) to the expected normalised error squared, however strongly the
components are correlated. Rows of G are rounded to an eighth of the step. Its diagonal is at least c_i, so it stays
positive; and a factor, found with the very arithmetic of the reader, makes G G' no smaller than P.
"""

from __future__ import annotations

from datetime import date, timedelta
from math import floor, frexp, isfinite, ldexp, sqrt
from typing import Any, Final, NoReturn

import msgpack

from fusionnode.core import schema

FORM: Final = 1
"""Item 0 of the records made here."""

_ITEMS: Final = 26
_DAY_US: Final = 86_401_000_000  # with room for a leap second
_FIRST_DAY: Final = date(2000, 1, 1)
_LAST_DAY: Final = (date(9999, 12, 31) - _FIRST_DAY).days
_TRIANGLE: Final = [(i, j) for i in range(6) for j in range(i + 1)]
_FRAME: Final = "GCRF"
_MOST_INFLATION: Final = 1_023
_EXPONENTS: Final = range(-200, 200)
_STEPS_A_SIGMA: Final = 20.0
_FINER: Final = 3  # G lies on a grid finer by 2**3
_MOST_STEPS: Final = 1 << 62
_UCT, _UCT_WITHHELD, _ID_IS_TRACK, _ID_WITHHELD = 1, 2, 4, 8
_COMPONENTS: Final = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
_PER_UNIT: Final = 10_000  # probabilities
_NIS_PER_UNIT: Final = 100

_Matrix = list[list[float]]


def pack_state(payload: bytes) -> bytes | None:
    """A state's payload as a packed compact record; None if it is no state, or one that does not fit the form."""
    body = msgpack.unpackb(payload)
    if type(body) is not dict or body.get("type") != schema.TYPE_STATE:
        return None
    record = encode(body)
    return None if record is None else msgpack.packb(record)


def encode(body: dict[str, Any]) -> list[Any] | None:
    """The record of one ``state`` message (the map of the wire: km, km/s); None if it does not fit the form.

    It does not fit if it is in other frames, if its covariance is not positive definite or its components so
    different in size that the grid has no room, or if a time is none.
    """
    try:
        return _encoded(body)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None


def decode(record: Any, stream_epoch: str) -> dict[str, Any]:
    """The ``state`` message that a record stands for, on its grid; what was withheld is absent.

    Args:
        record: the unpacked array.
        stream_epoch: of the stream that it belongs to; the record does not say.

    Raises:
        ValueError: it is no compact record of this form. The fields' own types are for the caller to check, as
            those of a message that came as a map.
    """
    if type(record) is not list or len(record) < _ITEMS:
        _refuse()
    (
        form, seq, track_id, epoch, a, b, steps, inflation, factor, status, bits, sat_no, id_on_orbit, name,
        probability, age, nis, dof, updates, existence, sensors, provenance, releasable, marking, mode, source,
    ) = record[:_ITEMS]  # fmt: skip
    if form != FORM:
        raise ValueError("a compact record of another form")
    if not (_whole(epoch) and _whole(a) and _whole(b) and _whole(bits) and _whole(inflation)):
        _refuse()
    if a not in _EXPONENTS or b not in _EXPONENTS or not 0 <= inflation <= _MOST_INFLATION:
        _refuse()
    if not (_steps(steps, 6) and _steps(factor, 21)) or not _whole(status) or not 0 <= status < 3:
        _refuse()
    cov = _covariance(factor, a, b, inflation)
    x = [ldexp(n, a if i < 3 else b) for i, n in enumerate(steps)]
    body: dict[str, Any] = {
        "v": schema.SCHEMA_VERSION,
        "type": schema.TYPE_STATE,
        "streamEpoch": stream_epoch,
        "seq": seq,
        "trackId": track_id,
        "epoch": _text(epoch),
        "referenceFrame": _FRAME,
        **dict(zip(_COMPONENTS, x, strict=True)),
        "cov": cov,
        "covReferenceFrame": _FRAME,
        "status": schema.STATUSES[status],
    }
    if not bits & _UCT_WITHHELD:
        body["uct"] = bool(bits & _UCT)
    body["satNo"] = sat_no
    if not bits & _ID_WITHHELD:
        body["idOnOrbit"] = track_id if bits & _ID_IS_TRACK else id_on_orbit
    body["name"] = name
    body["objectProbability"] = _part(probability, _PER_UNIT)
    if sensors is not None:
        body["sensors"] = sensors
    if age is not None:
        if not _whole(age):
            _refuse()
        body["lastObEnd"] = _text(epoch - age)
    body |= {"nis": _part(nis, _NIS_PER_UNIT), "dof": dof}
    if updates is not None:
        body["updates"] = updates
    body["existence"] = _part(existence, _PER_UNIT)
    if provenance is not None:
        body["provenance"] = provenance
    body |= {"classificationMarking": marking, "dataMode": mode, "source": source}
    if releasable is not None:
        body["releasableTo"] = releasable
    return body


def _encoded(body: dict[str, Any]) -> list[Any] | None:
    if body["referenceFrame"] != _FRAME or body["covReferenceFrame"] != _FRAME:
        return None
    P = _square(body["cov"])
    G = _cholesky(P)
    if G is None:
        return None
    sigmas = _conditional(G)
    a = _exponent(min(sigmas[:3]) / _STEPS_A_SIGMA)
    b = _exponent(min(sigmas[3:]) / _STEPS_A_SIGMA)
    if a not in _EXPONENTS or b not in _EXPONENTS:
        return None
    grid = [a, a, a, b, b, b]
    steps = [round(ldexp(body[key], -grid[i])) for i, key in enumerate(_COMPONENTS)]
    factor = [round(ldexp(G[i][j], _FINER - grid[i])) for i, j in _TRIANGLE]
    if max(map(abs, steps)) >= _MOST_STEPS or max(map(abs, factor)) >= _MOST_STEPS:
        return None
    # What the rounding of the state adds: step^2 / 12 on the diagonal.
    need = [
        [P[i][j] + (ldexp(1.0, 2 * grid[i]) / 12.0 if i == j else 0.0) for j in range(6)] for i in range(6)
    ]
    inflation = _inflation(need, factor, a, b)
    if inflation is None:
        return None
    epoch = _number(body["epoch"])
    last = body.get("lastObEnd")
    uct, id_on_orbit, track_id = body.get("uct"), body.get("idOnOrbit"), body["trackId"]
    bits = _UCT_WITHHELD if uct is None else _UCT * uct
    bits |= _ID_WITHHELD if id_on_orbit is None else _ID_IS_TRACK * (id_on_orbit == track_id)
    nis = body.get("nis")
    return [
        FORM,
        body["seq"],
        track_id,
        epoch,
        a,
        b,
        steps,
        inflation,
        factor,
        schema.STATUSES.index(body["status"]),
        bits,
        body.get("satNo"),
        None if bits & (_ID_WITHHELD | _ID_IS_TRACK) else id_on_orbit,
        body.get("name"),
        _floor(body.get("objectProbability")),
        None if last is None else epoch - _number(last),
        None if nis is None else round(nis * _NIS_PER_UNIT),
        body.get("dof"),
        body.get("updates"),
        _floor(body.get("existence")),
        body.get("sensors"),
        body.get("provenance"),
        body.get("releasableTo"),
        body["classificationMarking"],
        body["dataMode"],
        body["source"],
    ]


def _inflation(need: _Matrix, factor: list[int], a: int, b: int) -> int | None:
    """The smallest k with which what a reader makes of ``factor`` is not smaller than ``need``; None: there is none."""

    d = [1.0 / sqrt(need[i][i]) for i in range(6)]

    def enough(k: int) -> bool:
        have = _covariance(factor, a, b, k)
        rest = [(h - need[i][j]) * d[i] * d[j] for h, (i, j) in zip(have, _TRIANGLE, strict=True)]
        return _cholesky(_square(rest)) is not None

    low, high = -1, 8
    while not enough(high):
        if high == _MOST_INFLATION:
            return None
        low, high = high, min(2 * high, _MOST_INFLATION)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return min(high + 1, _MOST_INFLATION)


def _covariance(factor: list[int], a: int, b: int, inflation: int) -> list[float]:
    """Lower triangle of c^2 G G', row by row."""
    c = 1.0 + inflation / 1024.0
    G = [[0.0] * 6 for _ in range(6)]
    for (i, j), n in zip(_TRIANGLE, factor, strict=True):
        G[i][j] = c * ldexp(n, (a if i < 3 else b) - _FINER)
    return [sum(G[i][k] * G[j][k] for k in range(j + 1)) for i, j in _TRIANGLE]


def _square(lower: Any) -> _Matrix:
    if len(lower) != len(_TRIANGLE):
        raise ValueError("a covariance has 21 elements")
    P = [[0.0] * 6 for _ in range(6)]
    for (i, j), value in zip(_TRIANGLE, lower, strict=True):
        if not isfinite(value):
            raise ValueError("a covariance is finite")
        P[i][j] = P[j][i] = float(value)
    return P


def _cholesky(P: _Matrix) -> _Matrix | None:
    """Lower G with P = G G'; None if P is not positive definite to working accuracy."""
    G = [[0.0] * 6 for _ in range(6)]
    for i in range(6):
        for j in range(i + 1):
            rest = P[i][j] - sum(G[i][k] * G[j][k] for k in range(j))
            if i != j:
                G[i][j] = rest / G[j][j]
            elif rest > 1e-14 * abs(P[i][i]):
                G[i][i] = sqrt(rest)
            else:
                return None
    return G


def _conditional(G: _Matrix) -> list[float]:
    """Standard deviation of each component when the five others are known: the diagonal of (G G')^-1, to -1/2."""
    inverse = [[0.0] * 6 for _ in range(6)]
    for j in range(6):
        inverse[j][j] = 1.0 / G[j][j]
        for i in range(j + 1, 6):
            inverse[i][j] = -sum(G[i][k] * inverse[k][j] for k in range(j, i)) / G[i][i]
    return [1.0 / sqrt(sum(inverse[k][i] ** 2 for k in range(i, 6))) for i in range(6)]


def _exponent(step: float) -> int:
    """The largest e with 2^e <= step."""
    return frexp(step)[1] - 1


def _number(text: str) -> int:
    """Item 3 of UTC text ``YYYY-MM-DDThh:mm:ss.ffffffZ``."""
    if len(text) != 27 or text[10] != "T" or text[26] != "Z":
        raise ValueError("not a time")
    h, m, s, us = int(text[11:13]), int(text[14:16]), int(text[17:19]), int(text[20:26])
    days = (date.fromisoformat(text[:10]) - _FIRST_DAY).days
    if s > 59 and (h, m, s) != (23, 59, 60):
        raise ValueError("a second that is none")
    number = days * _DAY_US + ((h * 60 + m) * 60 + s) * 1_000_000 + us
    if _text(number) != text:  # whatever else was odd about it
        raise ValueError("not a time")
    return number


def _text(number: int) -> str:
    days, us = divmod(number, _DAY_US)
    if not -_FIRST_DAY.toordinal() < days <= _LAST_DAY:
        _refuse()
    s, us = divmod(us, 1_000_000)
    h, m, s = (23, 59, 60) if s == 86_400 else (s // 3600, s // 60 % 60, s % 60)
    return f"{(_FIRST_DAY + timedelta(days)).isoformat()}T{h:02d}:{m:02d}:{s:02d}.{us:06d}Z"


def _floor(probability: float | None) -> int | None:
    return None if probability is None else floor(probability * _PER_UNIT)


def _part(number: Any, per_unit: int) -> float | None:
    if number is None:
        return None
    if not _whole(number):
        _refuse()
    return float(number / per_unit)


def _whole(value: Any) -> bool:
    return type(value) is int


def _steps(items: Any, n: int) -> bool:
    return type(items) is list and len(items) == n and all(_whole(i) and abs(i) <= _MOST_STEPS for i in items)


def _refuse() -> NoReturn:
    raise ValueError("not a compact record")
