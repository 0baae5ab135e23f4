"""What `make bench` prints last: our kernels against filterpy, the node's latency against bare pyzmq+msgpack."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import bench_ekf
import bench_latency


def machine() -> str:
    """Processor, cores and load."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    words = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    name = words.get("model name", platform.processor())
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    return (
        f"{name} (family {words.get('cpu family', '?')}, model {words.get('model', '?')}), "
        f"{os.cpu_count()} cores, load {load} before, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    print(machine(), end="\n\n", flush=True)
    bench_ekf.report()
    print(flush=True)
    bench_latency.report()
