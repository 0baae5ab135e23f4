"""How far the EKF kernel is from what the core can do: ``python tests/bench/arithmetic_limit.py``

The operations of one pair are counted, not estimated: the kernels run uncompiled (NUMBA_DISABLE_JIT) on numbers that
count what is done with them. What the core can do is measured in the same run, by kernels that do nothing but
multiply and add in registers: once fused, once one after the other. Our kernels may not fuse (the same input is to
give the same bytes), so the second is their limit. A division or a square root takes a core many times as long as a
multiplication: their rate is measured too, and what the counted ones cost is part of the limit. Times are of the
processor spent on this thread, so that other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from time import thread_time
from typing import Any, ClassVar

import numpy as np

TRACKS = 10_000
AIM = 2_000_000
CHAINS = 6
DEEP = 64


class Counted:
    """A float that counts the operations done with it, in ``Counted.ops``."""

    ops: ClassVar[Counter[str]] = Counter()
    __array_priority__ = 100.0
    __slots__ = ("v",)

    def __init__(self, v: Any) -> None:
        self.v = v.v if isinstance(v, Counted) else float(v)

    def _two(self, other: Any, kind: str, f: Callable[[float, float], float]) -> Counted:
        Counted.ops[kind] += 1
        return Counted(f(self.v, other.v if isinstance(other, Counted) else float(other)))

    def __add__(self, other: Any) -> Counted:
        return self._two(other, "add", lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Counted:
        return self._two(other, "add", lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Counted:
        return self._two(other, "add", lambda a, b: b - a)

    def __mul__(self, other: Any) -> Counted:
        return self._two(other, "multiply", lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Counted:
        return self._two(other, "divide", lambda a, b: float(np.divide(a, b)))

    def __rtruediv__(self, other: Any) -> Counted:
        return self._two(other, "divide", lambda a, b: float(np.divide(b, a)))

    def __pow__(self, n: int) -> Counted:
        Counted.ops["multiply"] += abs(int(n)) - 1
        return Counted(self.v**n)

    def __neg__(self) -> Counted:
        return Counted(-self.v)

    def __pos__(self) -> Counted:
        return self

    def __abs__(self) -> Counted:
        return Counted(abs(self.v))

    def sqrt(self) -> Counted:
        """What np.sqrt calls."""
        Counted.ops["square root"] += 1
        return Counted(np.sqrt(self.v))

    def ceil(self) -> Counted:
        """What np.ceil calls."""
        return Counted(np.ceil(self.v))

    def isfinite(self) -> bool:
        """What np.isfinite calls."""
        return bool(np.isfinite(self.v))

    def __float__(self) -> float:
        return self.v

    def __int__(self) -> int:
        return int(self.v)

    def __bool__(self) -> bool:
        return bool(self.v)

    def __lt__(self, other: Any) -> bool:
        return self.v < float(other)

    def __le__(self, other: Any) -> bool:
        return self.v <= float(other)

    def __gt__(self, other: Any) -> bool:
        return self.v > float(other)

    def __ge__(self, other: Any) -> bool:
        return self.v >= float(other)

    def __eq__(self, other: object) -> bool:
        return bool(self.v == float(other))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(self.v)


def counted(values: Any) -> Any:
    """The same array of numbers that count."""
    plain = np.asarray(values)
    out = np.empty(plain.shape, object)
    for at in np.ndindex(plain.shape):
        out[at] = Counted(plain[at])
    return out


def count() -> None:
    """In a process without compilation: print the operations of the pairs of one workspace, as JSON."""
    from bench_sky import Scene

    from fusionnode.track.filtering import filter as ekf
    from fusionnode.track.lanes import LANES, workspace

    s = Scene(LANES)
    n = LANES
    x, P, z = counted(s.tracks.x), counted(s.tracks.P), counted(s.measurements.z)
    Counted.ops.clear()
    ekf.try_pairs(
        counted(workspace()), n, s.room.slots, s.room.rows, x, P, counted(s.tracks.epoch), z, s.measurements.t,
        s.measurements.channels, s.rules.model, s.rules.psd, s.rules.gates, s.rules.may_drop, s.room.trials,
    )  # fmt: skip
    assert np.isfinite(s.room.trials.nis[:n]).all()
    print(json.dumps({kind: ops / n for kind, ops in Counted.ops.items()}))


def machine_rates() -> dict[str, float]:
    """Operations a second of one core, in registers, best of several: fused, separate, divide, square root."""
    import numba

    def chains(step: str, more: bool) -> Callable[[Any, float, float], None]:
        names = "pqrtuvxz"[:CHAINS]
        lines = ["def f(w, c, d):", "    for m in range(w.shape[1]):"]
        lines += [f"        {x} = w[{i}, m]" for i, x in enumerate(names)]
        for _ in range(DEEP if more else 4):
            lines += [f"        {x} = {step.replace('y', x)}" for x in names]
        lines += [f"        w[{i}, m] = {x}" for i, x in enumerate(names)]
        space: dict[str, Any] = {"np": np}
        exec("\n".join(lines), space)
        return space["f"]

    out = {}
    w = np.full((CHAINS, 64), 1.5)
    for name, step, more, fused, ops in (
        ("fused", "y * c + d", True, True, 2),
        ("separate", "y * c + d", True, False, 2),
        ("divide", "c / y", False, False, 1),
        ("square root", "np.sqrt(y)", False, False, 1),
    ):
        options: dict[str, Any] = {"fastmath": {"contract"}} if fused else {}
        f = numba.njit(error_model="numpy", **options)(chains(step, more))

        @numba.njit(error_model="numpy")
        def many(w: Any, times: int, f: Any = f) -> None:
            for _ in range(times):
                f(w, 0.999, 1e-9)

        many(w, 1)
        best = np.inf
        per_call = w.size * (DEEP if more else 4) * ops
        times = int(2e8 / per_call)
        for _ in range(7):
            w[:] = 1.5
            began = thread_time()
            many(w, times)
            best = min(best, thread_time() - began)
        out[name] = per_call * times / best
    return out


def pairs_per_s(rounds: int = 7) -> float:
    """Predict and update of TRACKS tracks, best of several."""
    from bench_sky import Scene

    from fusionnode.track.filtering.engine import NumbaEngine

    s, engine = Scene(TRACKS), NumbaEngine()
    best = np.inf
    for _ in range(rounds + 1):
        began = thread_time()
        for _ in range(10):
            engine.try_pairs(s.tracks, s.measurements, TRACKS, s.rules, s.room)
        best = min(best, (thread_time() - began) / 10)
    return TRACKS / best


def main() -> int:
    """Count, measure, compare."""
    words = argparse.ArgumentParser()
    words.add_argument(
        "--count", action="store_true", help="count only, as JSON (the script calls itself so)"
    )
    if words.parse_args().count:
        count()
        return 0
    ops = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--count"],
            env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    rates = machine_rates()
    rate = pairs_per_s()
    again = machine_rates()
    rates = {name: max(value, again[name]) for name, value in rates.items()}
    flops = sum(ops.values())
    print(f"one pair (J2-J6, a step of 10 s with its transition; four channels): {flops:,.0f} operations:",
          ", ".join(f"{v:,.0f} {k}" for k, v in sorted(ops.items(), key=lambda kv: -kv[1])))  # fmt: skip
    print(
        f"the core: {rates['fused'] / 1e9:.1f} Gflop/s fused, {rates['separate'] / 1e9:.1f} Gflop/s one after the"
        f" other, {rates['divide'] / 1e9:.2f} G divisions/s, {rates['square root'] / 1e9:.2f} G square roots/s"
    )
    slow = {k: ops.get(k, 0.0) / rates[k] for k in ("divide", "square root")}
    least = (ops["add"] + ops["multiply"]) / rates["separate"] + sum(slow.values())
    print(f"limit without fusing: {1 / least:,.0f} pairs/s; with it, at best: {rates['fused'] / flops:,.0f}")
    print(
        f"the kernel at {TRACKS:,} tracks: {rate:,.0f} pairs/s = {rate * flops / 1e9:.1f} Gflop/s:"
        f" {rate * least:.0%} of its limit, {rate * flops / rates['fused']:.0%} of the core's peak; aim {AIM:,}"
    )
    return 0 if rate >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
