from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.links import compute as module
from llm_assets.links.compute import LINK, ComputeConfig, compute
from llm_assets.links.link import Office
from llm_assets.store.journal import Journal


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.setattr(module, "BUDGET", 0.02)
    return Office("tiny", tmp_path, Journal(tmp_path / "compute.jsonl"), tmp_path)


def test_devices_and_speed_are_stated(office: Office) -> None:
    record = compute(office, ComputeConfig(price_per_core_hour=0.05)).record
    cpu = record["devices"][0]
    assert cpu["kind"] == "cpu" and cpu["name"] and cpu["count"] == record["cores"] >= 1
    assert cpu["memory_bytes"] > 2**28
    assert record["matmul_gflops"] > 0.5 and record["memory_gb_per_s"] > 0.1 and record["price_per_core_hour"] == 0.05


def test_another_speed_is_the_same_machine(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compute(office, ComputeConfig())
    monkeypatch.setattr(module, "matmul_gflops", lambda: 1.0)
    after = compute(office, ComputeConfig())
    assert before.data_version == after.data_version and after.record["matmul_gflops"] == 1.0
    monkeypatch.setattr(module, "gpus", lambda: [{"kind": "cuda", "name": "test", "count": 1, "memory_bytes": 2**34}])
    assert compute(office, ComputeConfig()).data_version != before.data_version


def test_too_little_memory_fails(office: Office) -> None:
    record = compute(office, ComputeConfig(minimum_memory_gb=1_000_000)).record
    assert not LINK.checks[0].judge(record, {}).passed
    assert LINK.checks[0].judge(compute(office, ComputeConfig(minimum_memory_gb=0.1)).record, {}).passed
