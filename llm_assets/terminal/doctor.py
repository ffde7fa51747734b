"""What a run needs of this machine, each finding with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY_NEEDED = 6e9  # bytes, what the demo may use
DISK_NEEDED = 3e9  # bytes for artifacts, checkpoints and the Dagster and MLflow databases
PORTS = {3000: "the Dagster UI", 5000: "the MLflow UI", 8000: "the gateway"}
PACKAGES = ("dagster", "pandas", "pyarrow", "datasets", "transformers", "torch", "deepspeed", "mlflow", "great-expectations", "onnxruntime")


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    fine: bool
    text: str


def examine(home: Path) -> list[Finding]:
    """Look at Python, packages, processors, memory, disk, ports and the chains' YAML files."""
    return [*_python(), *_packages(), *_machine(home), *_ports(), *_chains()]


def _python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    yield Finding((3, 11) <= version < (3, 13), f"Python {version[0]}.{version[1]} (3.11 and 3.12 are supported)")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(True, f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(False, f"{name} is not installed: pip install -c constraints.txt -e .")


def _machine(home: Path) -> Iterator[Finding]:
    import psutil

    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(home).free
    yield Finding(True, f"{os.cpu_count()} processors")
    yield Finding(memory >= MEMORY_NEEDED, f"{memory / 1e9:.1f} GB of memory available (the demo uses up to {MEMORY_NEEDED / 1e9:.0f})")
    yield Finding(disk >= DISK_NEEDED, f"{disk / 1e9:.1f} GB free for {home} (at least {DISK_NEEDED / 1e9:.0f})")


def _ports() -> Iterator[Finding]:
    for port, user in PORTS.items():
        with socket.socket() as probe:
            busy = probe.connect_ex(("127.0.0.1", port)) == 0
        yield Finding(True, f"port {port} of {user} is {'in use (by llm-assets up, or choose another)' if busy else 'free'}")


def _chains() -> Iterator[Finding]:
    from llm_assets.definitions import chains

    try:
        for name, spec in chains().items():
            yield Finding(True, f"chain {name} loads, preset {spec.preset or 'none'}")
    except Exception as error:
        yield Finding(False, f"a chain's YAML does not load: {error.__cause__ or error}")
