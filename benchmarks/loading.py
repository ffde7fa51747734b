"""How fast Dagster can load the code location."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.result import Result

HEAVY = ("torch", "transformers", "deepspeed", "mlflow", "great_expectations")
SCRIPT = f"""
import sys, time
began = time.perf_counter()
import llm_assets.definitions
llm_assets.definitions.defs()
print(time.perf_counter() - began, [name for name in {HEAVY!r} if name in sys.modules])
"""
RUNS = 5
LIMIT = 2.0  # seconds


def definitions(preset: str, home: Path) -> Result:
    """Importing llm_assets.definitions and building every chain, median of 5 processes, against 2 s and no heavy import."""
    seconds, heavy = [], ""
    for _ in range(RUNS):
        printed = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
        figure, heavy = printed.strip().split(" ", 1)
        seconds.append(float(figure))
    bare = statistics.median(_import_dagster() for _ in range(RUNS))
    median = statistics.median(seconds)
    print(f"import dagster alone: {bare:.2f} s; heavy libraries imported: {heavy}")
    return Result("definitions", round(median, 3), "s", f"<= {LIMIT:g} and none of {', '.join(HEAVY)}", median <= LIMIT and heavy == "[]")


def _import_dagster() -> float:
    script = "import time; began = time.perf_counter(); import dagster; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
