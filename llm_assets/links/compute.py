"""The devices a chain runs on, and how fast they are: the first node of the chain."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.store.fingerprint import digest
from llm_assets.store.verdict import Verdict

BUDGET = 0.3  # seconds a measurement may take; the best round counts, since noise only slows
MATRIX = 1024  # rows and columns, float32: 2.1 GFLOP a product
VECTOR = 1 << 25  # float32 elements: 128 MiB, past every cache


class ComputeConfig(Section):
    """What the machine costs and must have at least."""

    price_per_core_hour: float = Field(0.0, ge=0, description="in the currency of your bill; 0 leaves cost out")
    minimum_memory_gb: float = Field(4.0, ge=0, description="GiB below which training is not started")


def compute(office: Office, config: ComputeConfig) -> Acted:
    """Finds the devices and measures them: matrix products in GFLOP/s (float32) and memory reads in GB/s.

    Training puts its own speed beside these figures. Takes about a second, always runs; its data version changes with the
    devices and not with the speed, so a busy machine makes nothing stale.
    """
    devices = [_cpu(), *gpus()]
    speed = {
        "matmul_gflops": round(matmul_gflops(), 1),
        "memory_gb_per_s": round(memory_gb_per_s(), 1),
    }
    record = {"devices": devices, "cores": devices[0]["count"], **speed, "price_per_core_hour": config.price_per_core_hour}
    record["minimum_memory_bytes"] = int(config.minimum_memory_gb * 2**30)
    return Acted(record, digest(devices)[:24])


def matmul_gflops() -> float:
    """Billions of float32 operations a second in a matrix product over all cores numpy uses."""
    import numpy

    matrix = numpy.ones((MATRIX, MATRIX), dtype=numpy.float32)
    out = numpy.empty_like(matrix)
    return 2 * MATRIX**3 / _best(lambda: numpy.matmul(matrix, matrix, out=out)) / 1e9


def memory_gb_per_s() -> float:
    """Billions of bytes a second that one core reads in a row."""
    import numpy

    vector = numpy.ones(VECTOR, dtype=numpy.float32)
    return vector.nbytes / _best(vector.max) / 1e9


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest round within the budget, after one round that warms up."""
    work()
    deadline, fastest = time.perf_counter() + BUDGET, float("inf")
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def _cpu() -> dict[str, Any]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"kind": "cpu", "name": _cpu_name(), "count": cores, "memory_bytes": psutil.virtual_memory().total}


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def gpus() -> list[dict[str, Any]]:
    """CUDA devices, asked from the driver's own tool, since importing torch takes seconds."""
    import shutil
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (subprocess.SubprocessError, OSError):
        return []
    found = Counter(tuple(part.strip() for part in line.rsplit(",", 2)) for line in lines)
    return [
        {"kind": "cuda", "name": name, "count": count, "memory_bytes": int(mebibytes) * 2**20, "compute_capability": capability}
        for (name, mebibytes, capability), count in found.items()
    ]


def _enough_memory(record: Any, inputs: Any) -> Verdict:
    memory = max(device["memory_bytes"] for device in record["devices"])
    return Verdict(
        check="enough_memory",
        passed=memory >= record["minimum_memory_bytes"],
        description=f"{memory / 2**30:.1f} GiB on the largest device; at least {record['minimum_memory_bytes'] / 2**30:.1f} are asked for",
        values={"memory_bytes": memory},
    )


LINK = Link(
    name="compute",
    version=1,
    make=compute,
    config=ComputeConfig,
    inputs=(),
    stage="model",
    role="software_architect",
    kinds=("python",),
    checks=(Check("enough_memory", "The machine has the memory the chain asks for.", _enough_memory),),
    act=True,
)
