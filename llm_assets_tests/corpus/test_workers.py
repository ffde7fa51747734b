from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from llm_assets.corpus.workers import WorkerDiedError, in_workers


def double(number: int) -> int:
    return number * 2


def refuse(number: int) -> int:
    raise ValueError(f"shard {number}")


def die_at(fatal: int, number: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep(folder: Path, number: int) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(600)
    return number


@pytest.fixture(autouse=True)
def nothing_left() -> object:
    yield
    assert not [child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes: int) -> None:
    assert list(in_workers(double, range(20), processes)) == [number * 2 for number in range(20)]


def test_an_error_of_the_work_is_raised() -> None:
    with pytest.raises(ValueError, match="shard 0"):
        list(in_workers(refuse, range(4), 2))


def test_a_killed_worker_is_an_error_that_names_the_shard() -> None:
    with pytest.raises(WorkerDiedError, match=r"ended at shard \d or one of the next 3"):
        list(in_workers(partial(die_at, 3), range(20), 2))


def test_leaving_early_ends_the_workers() -> None:
    results = in_workers(double, range(1000), 2)
    assert next(results) == 0
    results.close()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
            from functools import partial
            from pathlib import Path
            from llm_assets.corpus.workers import in_workers
            from llm_assets_tests.corpus.test_workers import sleep
            if __name__ == "__main__":
                list(in_workers(partial(sleep, Path({str(tmp_path)!r})), range(2), 2))
        """)
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        deadline = time.monotonic() + 60
        while len(pids := [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]) < 2:
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.1)
