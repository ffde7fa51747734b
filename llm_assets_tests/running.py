"""Running the real command line in a data root of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a process that works in ``home``, with the user's cache of archives."""
    return {**os.environ, "LLM_ASSETS_HOME": str(home), "LLM_ASSETS_DAGSTER": str(home / "dagster"), "DAGSTER_HOME": str(ROOT), **extra}


def start(home: Path, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    """Start ``llm-assets`` in the repository's root."""
    return subprocess.Popen(
        [sys.executable, "-m", "llm_assets.cli", *arguments],
        cwd=ROOT,
        env=environment(home, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def llm_assets(home: Path, *arguments: str, seconds: float = 600, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``llm-assets`` to its end."""
    process = start(home, *arguments, **extra)
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def succeed(home: Path, *arguments: str, **extra: str) -> str:
    """Run ``llm-assets``, show what it said if it failed, return its output."""
    ended = llm_assets(home, *arguments, **extra)
    assert ended.returncode == 0, f"llm-assets {' '.join(arguments)} exited {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def processes_of(home: Path) -> Sequence[psutil.Process]:
    """Living processes whose environment names ``home``, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and process.environ().get("LLM_ASSETS_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found
