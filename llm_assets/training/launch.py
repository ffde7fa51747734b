"""Starting training processes, following them, and leaving none behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import psutil

from llm_assets.store.priority import own_group
from llm_assets.store.progress import Progress
from llm_assets.training import watch
from llm_assets.training.job import CANCEL, FAULT, PREEMPTED, PROGRESS, WORKER

POLL = 0.2  # seconds between two looks at the workers
GRACE = 8.0  # seconds between SIGTERM and SIGKILL
TAIL = 20  # lines of the log in an error
AGENT_REPORT = "torch/distributed/elastic/multiprocessing/api.py"  # torchrun's own report begins here and says nothing of the cause


class WorkerFailedError(RuntimeError):
    """A training process ended badly; the message holds the end of its log and the log's place."""


class LossError(WorkerFailedError):
    """Loss or gradient became infinite or no number; the last whole checkpoint is kept."""


class PreemptedError(WorkerFailedError):
    """Training was asked from outside to stop; it saved a checkpoint, from which the next attempt goes on."""


def launch(
    job: Path,
    processes: int,
    progress: Progress,
    environment: Mapping[str, str] = {},
    worker: str = WORKER,
) -> None:
    """Run ``python -m worker job`` in ``processes`` processes under torchrun, and return when all have ended well.

    Log and progress stand beside the job. ``environment`` is added to the workers'. Raises ``WorkerFailedError``, or
    its ``PreemptedError`` or ``LossError``, otherwise. Whatever ends this call, an interrupt included, no process is left.
    """
    with _Workers(job, processes, environment, worker) as workers:
        tail = _Tail(job.parent / PROGRESS)
        while (code := workers.poll()) is None:
            tail.report(progress)
            time.sleep(POLL)
        tail.report(progress)
        if code != 0:
            raise workers.failure(code)


class _Workers:
    """torchrun and every process below it."""

    def __init__(self, job: Path, processes: int, environment: Mapping[str, str], worker: str) -> None:
        self.folder = job.parent
        self.log = self.folder / "launch.log"
        self.fifo = self.folder / "launcher.fifo"
        self.registry = self.folder / "workers"
        self.seen: set[psutil.Process] = set()  # psutil compares start times, so a reused id is not mistaken for one of ours
        self.command = [sys.executable, "-m", "llm_assets.training.agent", "--standalone", f"--nproc-per-node={processes}"]
        self.command += ["-m", worker, str(job)]
        self.environment = {**os.environ, **_defaults(processes), **environment, watch.FIFO: str(self.fifo), watch.WORKERS: str(self.registry)}

    def __enter__(self) -> _Workers:
        for name in (CANCEL, FAULT, PREEMPTED, PROGRESS, self.fifo.name):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.registry, ignore_errors=True)
        self.registry.mkdir()
        os.mkfifo(self.fifo)
        # Read and write, since opening for writing alone waits for a reader. Not inherited, so it closes with this process.
        self.lifeline = os.open(self.fifo, os.O_RDWR)
        try:
            with self.log.open("wb") as log:
                self.agent = psutil.Popen(self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **own_group())
        except BaseException:
            os.close(self.lifeline)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._end()
        finally:
            os.close(self.lifeline)
            self.fifo.unlink(missing_ok=True)

    def poll(self) -> int | None:
        """torchrun's exit code, or None while it runs; takes note of every process below it."""
        self._look()
        return self.agent.poll()  # type: ignore[no-any-return]

    def failure(self, code: int) -> WorkerFailedError:
        """What to raise for torchrun's exit code."""
        marker = self.folder / PREEMPTED
        if marker.exists():
            step = json.loads(marker.read_text())["step"]
            return PreemptedError(f"training was asked to stop and saved a checkpoint at step {step}: materialize again to go on from there")
        fault = self.folder / FAULT
        if fault.exists():
            return LossError(
                f"training stopped: {json.loads(fault.read_text())['message']}. Its last whole checkpoint is kept. Remedy: a lower learning_rate "
                f"or max_gradient_norm, a longer warmup, or other data if one of these documents is odd; its log: {self.log}"
            )
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return WorkerFailedError(f"training ended {how}; its log {self.log} ends:\n{_log_tail(self.log)}")

    def _look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen.update(self.agent.children(recursive=True))
        for entry in self.registry.iterdir():
            try:
                process = psutil.Process(int(entry.name))
                if entry.read_text() == str(process.create_time()):
                    self.seen.add(process)
            except psutil.NoSuchProcess:
                continue

    def _end(self) -> None:
        """SIGTERM, 8 s, SIGKILL to each session, and a look that none lives.

        torchrun starts each worker in a session of its own: killing torchrun's group alone would leave them alive.
        """
        self._look()
        living = _living([self.agent, *self.seen])
        if not living:
            return
        (self.folder / CANCEL).touch()
        for process in living:
            _signal(process, signal.SIGTERM)
        _wait(living, GRACE)
        self._look()
        for process in _living([self.agent, *self.seen]):
            _signal(process, signal.SIGKILL)
        if left := _wait([self.agent, *self.seen], GRACE):
            raise WorkerFailedError(f"processes {[process.pid for process in left]} outlived SIGKILL; they hang in the kernel, see {self.log}")


class _Tail:
    """The progress lines that rank 0 appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0

    def report(self, progress: Progress) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.position += len(line)
                values = json.loads(line)
                progress(values.pop("step"), values.pop("total"), "steps", **values)


def _defaults(processes: int) -> dict[str, str]:
    """Environment the user may override: threads a process, and the loopback interface, which needs no resolvable host name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    defaults = {"OMP_NUM_THREADS": str(max(1, cores // processes)), "TOKENIZERS_PARALLELISM": "false"}
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    return {name: value for name, value in defaults.items() if name not in os.environ}


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still live after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (living := _living(processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
        for process in living:
            if isinstance(process, psutil.Popen):
                process.poll()  # reaps it
    return living


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    """To the process, and on SIGKILL to the whole group where it leads one: its data loaders go with it."""
    try:
        if number == signal.SIGKILL and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return


def _log_tail(path: Path) -> str:
    """The last lines before torchrun's own report."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    cut = next((number for number, line in enumerate(lines) if AGENT_REPORT in line), len(lines))
    return "\n".join((lines[:cut] or lines)[-TAIL:])
