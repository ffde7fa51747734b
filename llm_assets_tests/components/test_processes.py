"""`executor: processes`: every link in a process of its own, and what is left when one of them is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llm_assets_tests.running import ROOT, environment, processes_of


@pytest.fixture
def checkout(tiny_chain: Path, tmp_path: Path) -> Path:
    """A checkout whose chain asks for processes, over what the session's chain has made."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "llm_assets", folder / "llm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    chain = folder / "llm_assets" / "defs" / "reviews" / "defs.yaml"
    chain.write_text(chain.read_text(encoding="utf-8").replace("  preset: demo\n", "  preset: demo\n  executor: processes\n", 1), encoding="utf-8")
    shutil.copytree(tiny_chain, folder / "data", ignore=shutil.ignore_patterns("logs", "progress"))
    return folder


def run(checkout: Path, *arguments: str) -> subprocess.Popen[str]:
    variables = {**environment(checkout / "data"), "DAGSTER_HOME": str(checkout), "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "llm_assets.cli", "run", "reviews", "--preset", "tiny", *arguments]
    return subprocess.Popen(command, cwd=checkout, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def step_of(home: Path) -> psutil.Process | None:
    """The process of the link that trains: the parent of torchrun."""
    launchers = [process for process in processes_of(home) if "llm_assets.training.agent" in " ".join(process.cmdline())]
    return launchers[0].parent() if launchers else None


@pytest.mark.slow
def test_links_run_in_processes_of_their_own_and_say_no_more_than_otherwise(checkout: Path) -> None:
    process = run(checkout, "--set", "raw_corpus.limit=650", "--select", "raw_corpus", "--select", "screened_corpus")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "DEBUG" not in out + err and "STEP_START" not in out + err
    assert not processes_of(checkout / "data")


@pytest.mark.slow
def test_sigkill_of_a_step_ends_its_workers_and_fails_the_run(checkout: Path) -> None:
    home = checkout / "data"
    process = run(checkout, "--set", "pretrained_checkpoint.steps=5000", "--select", "pretrained_checkpoint")
    deadline = time.monotonic() + 120
    while (step := step_of(home)) is None:
        assert time.monotonic() < deadline and process.poll() is None, "no training began"
        time.sleep(0.2)
    assert step.pid not in (process.pid, os.getpid())
    step.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "pretrained_checkpoint" in err, (out, err)
    while processes_of(home):
        assert time.monotonic() < deadline + 60, "processes outlived their step"
        time.sleep(0.2)
