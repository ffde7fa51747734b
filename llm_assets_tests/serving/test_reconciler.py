from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.serving import reconciler as module
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.reconciler import Reconciler
from llm_assets.serving.state import desired_folder
from llm_assets_tests.serving.tiny import deploy


def test_nothing_desired_is_ready_after_the_first_look(tmp_path: Path) -> None:
    reconciler = Reconciler(tmp_path)
    assert not reconciler.ready
    reconciler.step()
    assert reconciler.ready
    assert reconciler.status() == {}


def test_a_desired_release_is_loaded_once(tmp_path: Path) -> None:
    loads: list[Path] = []

    def load(directory: Path) -> OnnxClassifier:
        loads.append(directory)
        return OnnxClassifier(directory)

    deploy(tmp_path, 1)
    reconciler = Reconciler(tmp_path, load)
    reconciler.step()
    reconciler.step()
    deploy(tmp_path, 1)  # asked for again
    reconciler.step()
    assert len(loads) == 1
    assert reconciler.status()["tiny"]["live"] == "tiny-1"


def test_a_flipped_bit_leaves_the_older_release_serving(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    reconciler = Reconciler(tmp_path)
    reconciler.step()
    model = deploy(tmp_path, 2).directory / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    reconciler.step()
    status = reconciler.status()["tiny"]
    assert (status["desired"], status["live"]) == ("tiny-2", "tiny-1")
    assert "SHA-256 differs" in status["error"] and "model.onnx" in status["error"]
    assert reconciler.ready
    assert reconciler.live["tiny"].desired.release == "tiny-1"


def test_a_model_that_answers_no_distribution_is_refused(tmp_path: Path) -> None:
    deploy(tmp_path, 1, sign=float("nan"))
    reconciler = Reconciler(tmp_path)
    reconciler.step()
    assert "probe" in reconciler.status()["tiny"]["error"]
    assert not reconciler.ready


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_the_probe_asks_what_the_problem_asks_for(tmp_path: Path, problem: str) -> None:
    deploy(tmp_path, 1, problem=problem)
    reconciler = Reconciler(tmp_path)
    reconciler.step()
    assert reconciler.ready
    deploy(tmp_path, 2, sign=float("nan"), problem=problem)
    reconciler.step()
    assert "probe" in reconciler.status()["tiny"]["error"]


def test_a_refused_release_is_tried_again_later_and_when_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[Path] = []

    def broken(directory: Path) -> OnnxClassifier:
        attempts.append(directory)
        raise MemoryError

    deploy(tmp_path, 1)
    reconciler = Reconciler(tmp_path, broken)
    for _ in range(3):
        reconciler.step()
    assert len(attempts) == 1
    assert reconciler.status()["tiny"]["error"] == "MemoryError"
    deploy(tmp_path, 1)
    reconciler.step()
    assert len(attempts) == 2
    monkeypatch.setattr(module, "RETRY", 0.0)
    deploy(tmp_path, 1)
    reconciler.step()
    reconciler.step()
    assert len(attempts) == 4


def test_a_damaged_desired_state_keeps_what_serves(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    reconciler = Reconciler(tmp_path)
    reconciler.step()
    path = desired_folder(tmp_path) / "tiny.json"
    path.write_text("{")
    reconciler.step()
    assert "materialize endpoint again" in reconciler.status()["tiny"]["error"]
    assert reconciler.status()["tiny"]["live"] == "tiny-1"


def test_a_chain_no_longer_desired_is_retired(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    reconciler = Reconciler(tmp_path)
    reconciler.step()
    (desired_folder(tmp_path) / "tiny.json").unlink()
    reconciler.step()
    assert reconciler.live == {} and reconciler.status() == {}


def test_the_data_root_may_move(tmp_path: Path) -> None:
    deploy(tmp_path / "here", 1)
    (tmp_path / "here").rename(tmp_path / "there")
    reconciler = Reconciler(tmp_path / "there")
    reconciler.step()
    assert reconciler.status()["tiny"]["live"] == "tiny-1"
