"""An environment is made of its pins whole or not at all, with a wheel written here: no index is asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from llm_assets.cli import app
from llm_assets.environments import environment
from llm_assets.environments.environment import ENVIRONMENTS, RECORD, Environment, EnvironmentFailedError, MissingEnvironmentError, make, remove
from llm_assets.terminal.tables import environment_table


class Tiny(Environment):
    """One whose pins stand elsewhere."""

    pinned = Path()

    @property
    def constraints(self) -> Path:
        return self.pinned


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_CONFIG_FILE": "/dev/null"}
    for name, value in wheels.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "wheels").mkdir()
    for version in ("1.0", "2.0"):
        information = f"apart-{version}.dist-info"
        with zipfile.ZipFile(tmp_path / "wheels" / f"apart-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("apart.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: apart\nVersion: {version}\n")
            wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{information}/RECORD", f"apart.py,,\n{information}/METADATA,,\n{information}/WHEEL,,\n{information}/RECORD,,\n")
    Tiny.pinned = tmp_path / "tiny.txt"
    Tiny.pinned.write_text("# what is pinned\napart==1.0\n")
    return Tiny(name="tiny", purpose="being small", package="apart", download=1e6, tried="here")


def version_of(python: Path) -> str:
    return subprocess.run([python, "-c", "import apart; print(apart.VERSION)"], capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_made_of_its_pins_listed_kept_beside_others_and_removed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingEnvironmentError, match=r"being small runs in the environment tiny.* Remedy: llm-assets env tiny \(0\.0 GB"):
        tiny.python()
    tiny.folder.mkdir(parents=True)
    (tiny.folder / "half").touch()  # of one that was killed
    seen: list[tuple[float, float, str]] = []
    folder = make(tiny, lambda done, total, unit, **_: seen.append((done, total, unit)))
    assert seen == [(0, 1, "packages")] and not (folder / "half").exists()
    assert json.loads((folder / RECORD).read_text())["pins"] == ["apart==1.0"]
    assert version_of(tiny.python()) == "1.0"  # the index has 2.0, too
    monkeypatch.setattr(environment, "_run", lambda *_: pytest.fail("made twice"))
    assert make(tiny) == folder

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(environment_table([tiny, replace(tiny, name="other")]))
    shown = console.export_text()
    assert re.search(r"tiny +being small +made, 0\.\d GB +3\.11 +here", shown) and re.search(r"other +.* not made, 0\.0 GB to download", shown)

    Tiny.pinned.write_text("apart==2.0\n")
    assert not tiny.is_made and tiny.folder != folder
    assert remove(tiny) == [folder] and not folder.exists() and remove(tiny) == []


def test_nothing_is_left_of_one_that_fails(tiny: Tiny) -> None:
    Tiny.pinned.write_text("apart==3.0\n")
    with pytest.raises(EnvironmentFailedError, match=r"(?s)tiny was not made: pip install ended with status 1:.*apart==3\.0.*Remedy: .*config list"):
        make(tiny)
    assert not tiny.folder.exists()


def test_a_killed_command_leaves_no_step_running() -> None:
    step = [sys.executable, "-c", "import time; time.sleep(60)"]
    script = f"from llm_assets.environments import environment; environment._run(environment.VLLM, {step!r})"
    command = subprocess.Popen([sys.executable, "-c", script])
    while len(below := psutil.Process(command.pid).children(recursive=True)) < 2:  # the guard and the step
        assert command.poll() is None
    command.kill()
    command.wait()
    assert not psutil.wait_procs(below, timeout=30)[1]


def test_a_machine_that_the_pins_are_not_for_is_told_so(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailedError, match=r"takes up to 3000000000\.0 GB .* Remedy: free some, or set LLM_ASSETS_CACHE"):
        make(replace(tiny, download=1e18))
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    with pytest.raises(EnvironmentFailedError, match=r"for Python 3\.11 on Linux x86_64; this is .* Remedy: run llm-assets with that Python"):
        make(tiny)


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_every_environment_pins_what_it_installs_and_says_what_was_run(name: str) -> None:
    one = ENVIRONMENTS[name]
    packages = [pin.partition("==")[0] for pin in one.pins]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", pin) for pin in one.pins) and len(set(packages)) == len(packages) > 30
    assert one.package in packages and "torch" in packages and one.download > 1e9 and "GPU" in one.tried


def test_the_command_lists_them_and_names_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path))
    listed = CliRunner().invoke(app, ["env"], env={"COLUMNS": "160"})
    assert listed.exit_code == 0 and all(name in listed.output for name in ENVIRONMENTS)
    wrong = CliRunner().invoke(app, ["env", "tgi"])
    assert "there are: compressed-tensors, vllm" in str(wrong.exception)
    assert CliRunner().invoke(app, ["env", "vllm", "--remove"]).exit_code == 0
