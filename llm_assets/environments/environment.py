"""Virtual environments below the user's cache, made by `llm-assets env NAME`: each is the home of a worker process.

Its pins are every package of a resolution for Linux on x86-64 and Python 3.11, in ``<name>.txt`` beside this module (a CPU build of torch
meets them too, and leaves CUDA's packages out); its folder is named by their hash, so other pins are another environment. A virtual
environment's scripts name the folder they were made in, so it cannot be made beside and renamed: it is made where it will stand, and counts
once ``environment.json`` is there, which is written last.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from llm_assets.store import guard
from llm_assets.store.files import write_json
from llm_assets.store.home import cache_root
from llm_assets.store.progress import Progress, silent

RECORD = "environment.json"
PYTHON = (3, 11)  # whose wheels the pins were resolved for
UNPACKED = 3.0  # times its download an environment takes on the disk while it is made, at most
TAIL = 12  # lines of pip's output in a message


class EnvironmentFailedError(RuntimeError):
    """An environment could not be made; the message says why, and what to do. Nothing of it was left."""


class MissingEnvironmentError(RuntimeError):
    """An environment is asked for that was not made on this machine; the message names the command."""


@dataclass(frozen=True)
class Environment:
    """What is installed apart, and why."""

    name: str
    purpose: str
    package: str  # what is installed, with all that it needs
    download: float  # bytes of its wheels, CUDA's among them
    tried: str  # what of it was run, and on what

    @property
    def constraints(self) -> Path:
        """The file of its pins."""
        return Path(__file__).with_name(f"{self.name}.txt")

    @property
    def pins(self) -> list[str]:
        """``package==version`` of everything in it."""
        lines = self.constraints.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    @property
    def folder(self) -> Path:
        """Where it stands, made or not."""
        pins = hashlib.sha256("\n".join(self.pins).encode()).hexdigest()
        return _home() / f"{self.name}-{pins[:12]}"

    @property
    def is_made(self) -> bool:
        """Whether it is there and whole."""
        return (self.folder / RECORD).is_file()

    @property
    def size(self) -> int:
        """Its bytes on the disk."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*"))

    def python(self) -> Path:
        """Its interpreter. Raises ``MissingEnvironmentError`` where it was not made."""
        if not self.is_made:
            raise MissingEnvironmentError(
                f"{self.purpose} runs in the environment {self.name}, which was not made here with the pins of this release. "
                f"Remedy: llm-assets env {self.name} ({self.download / 1e9:.1f} GB to download)"
            )
        return self.folder / "bin" / "python"


COMPRESSED_TENSORS = Environment(
    name="compressed-tensors",
    purpose="rounding to W8A8 and W4A16 for GPU hosts, by llm-compressor",
    package="llmcompressor",
    download=2.9e9,
    tried="on a CPU and, with torch 2.11, on one GPU (H100), with a small decoder",
)
VLLM = Environment(
    name="vllm",
    purpose="serving on a GPU host, by vLLM",
    package="vllm",
    download=4.2e9,
    tried="on one GPU (H100), with a small decoder in W8A8, Python 3.12 and FlashInfer's sampler off; a stand-in speaks its protocol in the tests",
)
ENVIRONMENTS = {one.name: one for one in (COMPRESSED_TENSORS, VLLM)}


def make(environment: Environment, progress: Progress = silent) -> Path:
    """Make an environment where it is not there yet; returns its folder. Raises ``EnvironmentFailedError``."""
    folder = environment.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if environment.is_made:
            return folder
        _refuse_unfit(environment)
        shutil.rmtree(folder, ignore_errors=True)  # what a killed one left
        try:
            _run(environment, [sys.executable, "-m", "venv", str(folder)])
            settings = ["--no-input", "--disable-pip-version-check", "--only-binary", ":all:", "--progress-bar", "off"]
            pins = ["--constraint", str(environment.constraints), environment.package]
            _run(environment, [str(folder / "bin" / "python"), "-m", "pip", "install", *settings, *pins], progress)
            write_json(folder / RECORD, {"pins": environment.pins, "python": platform.python_version(), "made": datetime.now(UTC).isoformat()})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def remove(environment: Environment) -> list[Path]:
    """Delete an environment, whatever pins it was made with; returns the folders that are gone."""
    found = []
    for folder in sorted(path for path in _home().glob(f"{environment.name}-*") if path.is_dir()):
        with FileLock(folder.with_suffix(".lock")):
            shutil.rmtree(folder)
        found.append(folder)
    return found


def _home() -> Path:
    return cache_root() / "environments"


def _refuse_unfit(environment: Environment) -> None:
    """Raise ``EnvironmentFailedError`` on a machine that the pins are not for, or without room for them."""
    machine = (platform.system(), platform.machine())
    if machine != ("Linux", "x86_64") or sys.version_info[:2] != PYTHON:
        raise EnvironmentFailedError(
            f"the pins of {environment.name} are for Python {PYTHON[0]}.{PYTHON[1]} on Linux x86_64; this is Python {platform.python_version()} on "
            f"{' '.join(machine)}. Remedy: run llm-assets with that Python there"
        )
    needed, free = UNPACKED * environment.download, shutil.disk_usage(_home()).free
    if free < needed:
        raise EnvironmentFailedError(
            f"{environment.name} takes up to {needed / 1e9:.1f} GB while it is made, {_home()} has {free / 1e9:.1f} GB. "
            "Remedy: free some, or set LLM_ASSETS_CACHE to a folder on a larger disk"
        )


def _run(environment: Environment, command: list[str], progress: Progress = silent) -> None:
    """Run a step under a guard; pip's lines tell how many of the pins it has got. Raises ``EnvironmentFailedError`` with the end of its output."""
    total, got, tail = len(environment.pins), 0, deque[str](maxlen=TAIL)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # what pip saw there it would not install
    with subprocess.Popen(
        [sys.executable, guard.__file__, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=variables,
    ) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            tail.append(line)
            if line.startswith(("Collecting ", "Processing ")):  # from an index, from a folder
                progress(got, total, "packages")
                got += 1
    if process.returncode:
        raise EnvironmentFailedError(
            f"{environment.name} was not made: {' '.join(command[2:4])} ended with status {process.returncode}:\n{''.join(tail)}"
            "Remedy: see with `pip config list` whether pip reaches a package index, then run the command again"
        )
