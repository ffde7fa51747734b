from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from llm_assets.serving import memory
from llm_assets.serving.hold import BEGINS
from llm_assets.serving.peak import mark
from llm_assets.serving.ports import PortError
from llm_assets.serving.services import default_services
from llm_assets.serving.supervisor import Service, ServiceError, check_ports, start, supervise
from llm_assets.store import guard
from llm_assets_tests.serving.conftest import alive, eventually

# A service with a child in a session of its own that ignores SIGTERM, as torchrun's workers stand; it writes both their ids.
FAMILY = textwrap.dedent("""
    import os, pathlib, subprocess, sys, time
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
    print("family up", flush=True)
    if len(sys.argv) > 2: sys.exit(3)
    time.sleep(600)
""")


def family(path: Path, *arguments: str, name: str = "family") -> Service:
    return Service(name, [sys.executable, "-c", FAMILY, str(path), *arguments])


def members(path: Path) -> list[int]:
    eventually(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A guard that waits half a second between SIGTERM and SIGKILL, instead of 8."""
    script = tmp_path / "guard.py"
    script.write_text(Path(guard.__file__).read_text().replace("GRACE = 8.0", "GRACE = 0.5"))
    monkeypatch.setattr(guard, "__file__", str(script))


def test_a_busy_port_is_named_with_who_wants_it_and_who_has_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortError) as caught:
            check_ports([Service("mlflow", ["x"], port=port, port_option="--mlflow-port")])
    message = str(caught.value)
    assert f"mlflow: port {port}" in message and f"process {os.getpid()}" in message and "--mlflow-port" in message


def test_two_services_cannot_share_a_port() -> None:
    port = free_port()
    with pytest.raises(PortError, match=f"b and a both want port {port}"):
        check_ports([Service("a", ["x"], port=port), Service("b", ["x"], port=port)])


def test_nothing_starts_when_a_port_is_busy(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        services = [family(tmp_path / "pids"), Service("web", ["x"], port=holder.getsockname()[1])]
        with pytest.raises(PortError, match="web"):
            supervise(services, tmp_path / "logs")
    assert not (tmp_path / "pids").exists()


def test_start_is_ready_inside_and_ends_all_after(tmp_path: Path) -> None:
    port = free_port()
    web = Service("web", [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], port=port, ready_url=f"http://127.0.0.1:{port}/")
    with start(web, tmp_path / "web.log") as running:
        assert alive(running.pid)
        eventually(lambda: "GET / " in (tmp_path / "web.log").read_text())
    assert not alive(running.pid)
    with start(family(tmp_path / "pids")):
        pids = members(tmp_path / "pids")
    assert not any(map(alive, pids))


def test_the_guard_ends_what_ignores_sigterm_when_its_lifeline_does(tmp_path: Path) -> None:
    service = family(tmp_path / "pids")
    process = subprocess.Popen([sys.executable, guard.__file__, *service.command], stdin=subprocess.PIPE)
    pids = members(tmp_path / "pids")
    assert process.stdin
    process.stdin.close()
    try:
        assert process.wait(10) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert not any(map(alive, pids))


def test_the_end_of_one_ends_all_and_is_named(tmp_path: Path) -> None:
    services = [family(tmp_path / "steady", name="steady"), family(tmp_path / "weak", "end", name="weak")]
    terminal = io.StringIO()
    with pytest.raises(ServiceError, match=r"(?s)weak ended by itself with status 3.*family up"):
        supervise(services, tmp_path / "logs", terminal)
    assert not any(map(alive, [*members(tmp_path / "steady"), *members(tmp_path / "weak")]))
    assert "weak   | family up\n" in terminal.getvalue()
    assert (tmp_path / "logs" / "weak.log").read_text() == "family up\n"


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    service = Service("odd", ["no-such-command"], ready_url="http://127.0.0.1:1/")
    with pytest.raises(ServiceError, match=r"(?s)odd ended by itself with status 127.*no-such-command does not start"), start(service):
        pytest.fail("it started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt() -> None:
        members(tmp_path / "pids")
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    supervise([family(tmp_path / "pids")], tmp_path / "logs", io.StringIO())
    assert not any(map(alive, members(tmp_path / "pids")))


def test_sigkill_of_the_supervisor_ends_all(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from llm_assets.store import guard
        from llm_assets.serving.supervisor import Service, supervise
        guard.__file__ = {guard.__file__!r}
        supervise([Service("family", [sys.executable, "-c", {FAMILY!r}, {str(tmp_path / "pids")!r}])], Path({str(tmp_path / "logs")!r}))
    """)
    supervisor = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    pids = members(tmp_path / "pids")
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: not any(map(alive, pids)))


def test_what_may_wait_is_held_near_a_gateways_peak_and_ends_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path)
    code = "import os, pathlib, sys\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\nwhile True: pass"
    services = [Service(name, [sys.executable, "-c", code, str(tmp_path / name)], may_wait=name == "run") for name in ("run", "serve")]
    serving = set[str]()

    def process(name: str) -> psutil.Process:
        return psutil.Process(int(str(eventually(lambda: (tmp_path / name).exists() and (tmp_path / name).read_text()))))

    def watch() -> None:
        try:
            run, serve = process("run"), process("serve")
            for _ in range(3):
                mark().touch()
                eventually(lambda: run.status() == psutil.STATUS_STOPPED)
                eventually(lambda: run.status() != psutil.STATUS_STOPPED)
                serving.add(serve.status())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    terminal = io.StringIO()
    supervise(services, tmp_path / "logs", terminal)
    thread.join()
    assert serving == {psutil.STATUS_RUNNING} and BEGINS in terminal.getvalue()
    assert not any(alive(int((tmp_path / name).read_text())) for name in ("run", "serve"))


def test_a_supervisor_that_a_terminal_stops_holds_nobody(tmp_path: Path) -> None:
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\nwhile True: pass"
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from llm_assets.serving import memory, peak
        from llm_assets.serving.supervisor import Service, supervise
        memory.MEMORY, peak.LASTS = Path({str(tmp_path)!r}), 1000
        peak.mark().touch()
        supervise([Service("run", [sys.executable, "-c", {code!r}, {str(tmp_path / "pid")!r}], may_wait=True)], Path({str(tmp_path / "logs")!r}))
    """)
    supervisor = psutil.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    try:
        run = psutil.Process(int(str(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))))
        for _ in range(3):
            eventually(lambda: run.status() == psutil.STATUS_STOPPED)
            supervisor.send_signal(signal.SIGTSTP)
            eventually(lambda: supervisor.status() == psutil.STATUS_STOPPED)
            enough = run.cpu_times().user + 0.05
            eventually(lambda enough=enough: run.cpu_times().user > enough)  # type: ignore[misc]
            assert run.status() != psutil.STATUS_STOPPED
            supervisor.send_signal(signal.SIGCONT)
    finally:
        supervisor.send_signal(signal.SIGCONT)
        supervisor.terminate()
        assert supervisor.wait(30) == 0
    assert not alive(run.pid)


def test_every_default_service_is_told_its_port(tmp_path: Path) -> None:
    services = default_services(tmp_path, 1, 2, 3)
    assert [(service.name, service.port, service.port_option) for service in services] == [
        ("dagster", 1, "--dagster-port"), ("daemon", None, "--port"), ("mlflow", 2, "--mlflow-port"), ("gateway", 3, "--gateway-port"),
    ]  # fmt: skip
    for service in services:
        tools = [part for part in service.command if part.startswith(str(Path(sys.executable).parent))]
        assert tools and all(Path(tool).is_file() for tool in tools), f"{service.name}: one of {tools} is not installed"
        assert service.port is None or str(service.port) in service.command


def test_what_stands_beside_the_gateway_yields_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {service.name for service in default_services(tmp_path) if "llm_assets.store.priority" in service.command} == {"dagster", "daemon"}
    monkeypatch.delenv("LLM_ASSETS_NICE")
    assert [service.name for service in default_services(tmp_path) if service.may_wait] == ["daemon"]
    monkeypatch.setenv("LLM_ASSETS_NICE", "0")
    assert not any(service.may_wait for service in default_services(tmp_path))
