"""Whatever dies, no process is left: torchrun and workers that only sleep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llm_assets.store.priority import NICE, SESSION
from llm_assets.store.progress import silent
from llm_assets.training import launch as module
from llm_assets.training.launch import PreemptedError, WorkerFailedError, launch

SLEEPER = "llm_assets_tests.training.sleeper"
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def job(folder: Path, **asks: object) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps({"seconds": 60, **asks}))
    return path


def wait_for_workers(folder: Path) -> list[int]:
    """Process ids of both workers, once both run."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        ready = [folder / f"ready-{rank}" for rank in (0, 1)]
        if all(path.exists() and path.read_text() for path in ready):
            return [int(path.read_text()) for path in ready]
        time.sleep(0.05)
    raise AssertionError((folder / "launch.log").read_text())


def in_thread(folder: Path, work: Callable[[list[int]], None]) -> threading.Thread:
    thread = threading.Thread(target=lambda: work(wait_for_workers(folder)), daemon=True)
    thread.start()
    return thread


def registered(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / "workers").iterdir()]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int], seconds: float = 0) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        alive = any(map(_lives, pids))
        if not alive or time.monotonic() >= deadline:
            return not alive
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    pids = registered(tmp_path)
    assert len(pids) in (2, 3)  # torchrun and its workers; one that fails at once ends the other before it registered
    assert gone(pids)


def test_progress_is_reported_and_a_good_end_returns(tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []
    launch(job(tmp_path, seconds=0.1), 2, lambda *a, **v: seen.append((*a, v)), ENVIRONMENT, SLEEPER)
    assert seen == [(1, 2, "steps", {"loss": 0.5})]


def test_training_yields_to_the_gateway(tmp_path: Path) -> None:
    seen: list[int] = []
    waiting = in_thread(tmp_path, lambda pids: seen.extend(psutil.Process(pid).nice() for pid in pids))
    launch(job(tmp_path, seconds=1), 2, silent, ENVIRONMENT | {NICE: "7"}, SLEEPER)
    waiting.join(10)
    assert seen == [7, 7]


@pytest.mark.parametrize("together", ["", "1"])
def test_workers_stand_in_sessions_of_their_own_unless_one_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: str) -> None:
    monkeypatch.setenv(SESSION, together)
    seen: list[tuple[bool, bool]] = []
    waiting = in_thread(tmp_path, lambda pids: seen.extend((os.getsid(pid) == os.getsid(0), os.getpgid(pid) == pid) for pid in pids))
    launch(job(tmp_path, seconds=1), 2, silent, ENVIRONMENT, SLEEPER)
    waiting.join(10)
    assert seen == [(bool(together), True)] * 2


def test_the_error_holds_the_cause_and_the_log(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailedError, match="the cause that a person wants to read") as failure:
        launch(job(tmp_path, fail=True), 2, silent, ENVIRONMENT, SLEEPER)
    assert str(tmp_path / "launch.log") in str(failure.value)


def test_a_killed_worker_ends_all(tmp_path: Path) -> None:
    in_thread(tmp_path, lambda pids: os.kill(pids[0], signal.SIGKILL))
    with pytest.raises(WorkerFailedError):
        launch(job(tmp_path), 2, silent, ENVIRONMENT, SLEEPER)


@pytest.mark.parametrize("together", ["", "1"])
def test_killed_torchrun_ends_all_even_deaf_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: str) -> None:
    monkeypatch.setattr(module, "GRACE", 1.0)
    monkeypatch.setenv(SESSION, together)
    in_thread(tmp_path, lambda pids: os.kill(psutil.Process(pids[0]).ppid(), signal.SIGKILL))
    with pytest.raises(WorkerFailedError, match="SIGKILL"):
        launch(job(tmp_path, deaf=True), 2, silent, ENVIRONMENT, SLEEPER)


def test_an_interrupt_cancels_without_a_checkpoint(tmp_path: Path) -> None:
    in_thread(tmp_path, lambda pids: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        launch(job(tmp_path), 2, silent, ENVIRONMENT, SLEEPER)
    assert not (tmp_path / "checkpoint").exists()


def test_preemption_from_outside_keeps_the_checkpoint(tmp_path: Path) -> None:
    in_thread(tmp_path, lambda pids: os.kill(psutil.Process(pids[0]).ppid(), signal.SIGTERM))
    with pytest.raises(PreemptedError, match="step 7"):
        launch(job(tmp_path), 2, silent, ENVIRONMENT, SLEEPER)
    assert (tmp_path / "checkpoint").exists()


def test_a_killed_launcher_takes_everything_with_it(tmp_path: Path) -> None:
    code = "from llm_assets.store.progress import silent; from llm_assets.training.launch import launch; from pathlib import Path;"
    code += f"launch(Path({str(job(tmp_path))!r}), 2, silent, {{}}, {SLEEPER!r})"
    launcher = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)
    try:
        wait_for_workers(tmp_path)
    finally:
        launcher.kill()
        launcher.wait()
    assert gone(registered(tmp_path), seconds=5)
