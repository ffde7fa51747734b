"""A gateway on a port: one a data root, which says where it is, and another one after it was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from llm_assets.serving.state import gateway_state
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import deploy


def test_a_killed_gateway_resumes_and_one_data_root_has_one(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, process):
        eventually(lambda: (gateway_state(tmp_path) or {})["chains"])
        state = gateway_state(tmp_path)
        assert state and state["pid"] == process.pid and state["chains"]["tiny"]["live"] == "tiny-1"
        second = subprocess.run([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(tmp_path)], capture_output=True, text=True)
        assert second.returncode == 1 and str(process.pid) in second.stderr and "already" in second.stderr
        third = subprocess.run(
            [sys.executable, "-m", "llm_assets.serving", "--port", str(state["port"]), "--home", str(tmp_path / "b")], capture_output=True, text=True
        )
        assert third.returncode == 1 and str(state["port"]) in third.stderr and f"process {process.pid}" in third.stderr
    assert gateway_state(tmp_path) is None
    with gateway(tmp_path) as (client, process):
        assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).json()["release"] == "tiny-1"
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert not (tmp_path / "serving" / "gateway.json").exists()
