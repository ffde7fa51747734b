"""Runs services side by side as one thing: all start or none does, and all end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO

from llm_assets.serving import ports
from llm_assets.serving.hold import holding
from llm_assets.serving.loopback import open_url
from llm_assets.store import guard

READY = 120.0  # seconds a service may take to answer
INTERVAL = 0.2  # seconds between two looks
TAIL = 20  # lines of output quoted when a service fails
COLOURS = (36, 35, 33, 32, 34)  # ANSI foregrounds, one a service


class ServiceError(RuntimeError):
    """A service ended by itself, or did not answer in time."""


@dataclass(frozen=True)
class Service:
    """A command to run, and how to tell that it serves."""

    name: str
    command: Sequence[str]
    port: int | None = None
    port_option: str = "--port"  # what the user types to choose another port; named in errors
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of this process's
    ready_url: str | None = None  # answers 200 once the service serves; None: ready when alive
    url: str | None = None  # what a person opens
    directory: Path | None = None  # where it runs
    host: str = "127.0.0.1"
    may_wait: bool = False  # what computes under it is held while a gateway is near its peak


class Running:
    """A started service, its command under a guard."""

    def __init__(self, service: Service, log: Path | None, terminal: TextIO | None = None, prefix: str = "") -> None:
        self.service = service
        self._tail: deque[str] = deque(maxlen=TAIL)
        command = [sys.executable, guard.__file__, *service.command]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **service.environment}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            process_group=0, env=environment, cwd=service.directory,
        )  # fmt: skip
        self._log = _open_log(log)
        self._terminal, self._prefix = terminal, prefix
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise ``ServiceError`` with the end of its output when it has ended."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1)
            raise ServiceError(f"{self.service.name} ended by itself with status {status}; the end of its output:\n{self.quote()}")

    def quote(self) -> str:
        """The last lines of its output."""
        return "".join(self._tail)

    def is_ready(self) -> bool:
        """Whether it answers; a service without a ready URL is ready when alive."""
        return self.service.ready_url is None or _answers(self.service.ready_url)

    def ask_to_end(self) -> None:
        """Cut its lifeline: the guard ends the command and its descendants."""
        assert self._process.stdin
        self._process.stdin.close()

    def wait_ended(self) -> None:
        """Return when nothing of it lives."""
        try:
            self._process.wait(guard.GRACE + 5)
        except subprocess.TimeoutExpired:
            _kill_tree(self._process.pid)
            self._process.wait()
        self._reader.join(timeout=1)

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as output, self._log or nullcontext() as log:
            for raw in output:
                line = raw.decode(errors="replace")
                self._tail.append(line)
                if log:
                    log.write(line)
                    log.flush()
                if self._terminal:
                    self._terminal.write(f"{self._prefix}{line}")
                    self._terminal.flush()


def check_ports(services: Sequence[Service]) -> None:
    """Raise ``PortError`` for the first port that is busy, or that two services want."""
    owners: dict[int, Service] = {}
    for service in services:
        if service.port is None:
            continue
        remedy = f"end that process or choose another port with {service.port_option} N"
        if other := owners.get(service.port):
            raise ports.PortError(f"{service.name} and {other.name} both want port {service.port}; choose another with {service.port_option} N")
        owners[service.port] = service
        ports.bind(service.host, service.port, service.name, remedy).close()


@contextmanager
def start(service: Service, log: Path | None = None) -> Iterator[Running]:
    """Run one service, ready inside the ``with`` block and ended after it; its output goes into ``log``.

    Raises ``PortError`` for a busy port, ``ServiceError`` when it does not come up.
    """
    check_ports([service])
    with _running(service, log) as running:
        _wait_ready([running], threading.Event())
        yield running


def supervise(services: Sequence[Service], logs: Path, terminal: TextIO = sys.stdout) -> None:
    """Run services until SIGINT, SIGTERM or the end of one of them; call it from the main thread.

    Output goes to the terminal, each line under its service's name, and to ``logs/<name>.log``. Raises ``PortError`` before
    anything starts, ``ServiceError`` naming the service that ended by itself; nothing of any service lives after either.
    """
    check_ports(services)
    stop, asleep = threading.Event(), threading.Event()
    width = max(len(service.name) for service in services)
    with _set_by_signals(stop, signal.SIGINT, signal.SIGTERM), _set_by_signals(asleep, signal.SIGTSTP), ExitStack() as stack:
        running: list[Running] = []
        for index, service in enumerate(services):
            prefix = _prefix(service.name, width, index, terminal.isatty())
            running.append(stack.enter_context(_running(service, logs / f"{service.name}.log", terminal, prefix)))
        stack.callback(_ask_to_end, running)  # all at once, before each is waited for
        _wait_ready(running, stop)
        for service in services:
            if service.url and not stop.is_set():
                print(f"{service.name:<{width}}   {service.url}", file=terminal, flush=True)
        hold = stack.enter_context(holding([each.pid for each in running if each.service.may_wait], lambda text: _tell(text, terminal)))
        while not stop.wait(INTERVAL):
            for each in running:
                each.check_alive()
            if asleep.is_set():  # nobody would let anything go on that is held now
                hold.release()
                asleep.clear()
                os.kill(os.getpid(), signal.SIGSTOP)
            hold.step()


def _ask_to_end(running: Sequence[Running]) -> None:
    for each in running:
        each.ask_to_end()


@contextmanager
def _running(service: Service, log: Path | None, terminal: TextIO | None = None, prefix: str = "") -> Iterator[Running]:
    running = Running(service, log, terminal, prefix)
    try:
        yield running
    finally:
        running.ask_to_end()
        running.wait_ended()


def _wait_ready(running: Sequence[Running], stop: threading.Event, seconds: float = READY) -> None:
    """Return once all answer, or ``stop`` is set. Raises ``ServiceError`` when one ends or the time is over."""
    deadline = time.monotonic() + seconds
    waiting = list(running)
    while waiting and not stop.wait(INTERVAL):
        for each in running:
            each.check_alive()
        waiting = [each for each in waiting if not each.is_ready()]
        if waiting and time.monotonic() > deadline:
            slow, silence = waiting[0], f"does not answer after {seconds:.0f} s"
            raise ServiceError(f"{slow.service.name} {silence} ({slow.service.ready_url}); the end of its output:\n{slow.quote()}")


@contextmanager
def _set_by_signals(event: threading.Event, *numbers: signal.Signals) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    before: list[Any] = [signal.signal(number, handle) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _tell(text: str, terminal: TextIO) -> None:
    """Print it from a thread: a terminal that was closed or paused must end and stop nothing here."""

    def told() -> None:
        with suppress(OSError, ValueError):
            print(text, file=terminal, flush=True)

    threading.Thread(target=told, daemon=True).start()


def _prefix(name: str, width: int, index: int, colour: bool) -> str:
    text = f"{name:<{width}} | "
    return f"\x1b[{COLOURS[index % len(COLOURS)]}m{text}\x1b[0m" if colour else text


def _open_log(path: Path | None) -> IO[str] | None:
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


def _answers(url: str) -> bool:
    try:
        with open_url(url, 2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _kill_tree(pid: int) -> None:
    import psutil

    for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
        process.kill()
