from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from llm_assets.serving.state import gateway_lock, gateway_state, gateway_state_path
from llm_assets.store.files import write_json


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_gateway_left_is_no_state_of_its_successor(tmp_path: Path) -> None:
    """A new gateway takes the lock an instant before it writes where it listens."""
    node = platform.node()
    with gateway_lock(tmp_path):
        assert gateway_state(tmp_path) is None
        write_json(gateway_state_path(tmp_path), {"pid": ended_process(), "node": node, "url": "old"})
        assert gateway_state(tmp_path) is None
        write_json(gateway_state_path(tmp_path), {"pid": os.getpid(), "node": node, "url": "new"})
        assert (gateway_state(tmp_path) or {})["url"] == "new"


def test_a_gateway_of_another_machine_is_believed(tmp_path: Path) -> None:
    """A container that shares the data root has process numbers of its own."""
    with gateway_lock(tmp_path):
        write_json(gateway_state_path(tmp_path), {"pid": ended_process(), "node": "elsewhere", "url": "there"})
        assert (gateway_state(tmp_path) or {})["url"] == "there"
