"""int8: as good as float within the allowed drop, and refused where it is not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import onnx
import pyarrow
import pyarrow.parquet
import pytest

from llm_assets.links.link import Bench
from llm_assets.links.quantized_model import LINK, QuantizedModelConfig, better, calibration_texts, quantized_model
from llm_assets.store.files import sha256_file
from llm_assets_tests.links import trained


def test_it_answers_like_the_float_model_and_passes() -> None:
    outcome = trained.quantized()
    assert all(found.passed for found in outcome.verdicts), outcome.verdicts
    assert outcome.artifact.metrics["against_float"]["test"]["agreement"] > 0.95
    knows_its_labels_and_its_tokenizer(outcome.artifact.directory)
    assert {"model.onnx", "tokenizer.json", "serving.json", "predictions.parquet", "pages/candidates.html", "plots/size.png"} == set(
        outcome.artifact.manifest.files
    )


def test_both_ways_are_measured_and_shown() -> None:
    made = trained.quantized().artifact
    candidates = made.metrics["candidates"]
    assert set(candidates) == {"dynamic", "static"} and made.metrics["method"] == better(candidates, 40)
    assert made.metrics["models"]["quantized"]["validation"]["accuracy"] == candidates[made.metrics["method"]]["validation_accuracy"]
    assert made.metrics["models"]["quantized"]["texts_per_second"] > 0
    page = made.path("pages/candidates.html").read_text()
    assert f"{made.metrics['method']} (taken)" in page and "static" in page and "dynamic" in page


def test_the_smaller_drop_is_taken_and_a_tie_of_one_document_goes_to_the_faster() -> None:
    def choose(dynamic: tuple[float, float], static: tuple[float, float]) -> str:
        return better({"dynamic": {"drop": dynamic[0], "p50_ms": dynamic[1]}, "static": {"drop": static[0], "p50_ms": static[1]}}, 100)

    assert choose((0.00, 9.0), (0.02, 1.0)) == "dynamic"
    assert choose((0.00, 9.0), (0.01, 1.0)) == "static"
    assert choose((0.01, 1.0), (0.00, 9.0)) == "dynamic"
    assert choose((0.02, 1.0), (-0.01, 9.0)) == "static"


def test_static_ranges_alone_serve_as_well(tmp_path: Path) -> None:
    directory, scratch = tmp_path / "artifact", tmp_path / "scratch"
    directory.mkdir(), scratch.mkdir()
    bench = Bench(directory, scratch, 1, tmp_path, trained.launch_quietly)
    inputs = {**trained.corpus(), "finetuned_model": trained.finetuned().artifact}
    config = QuantizedModelConfig(method="static", calibration_texts=20)
    metrics = quantized_model(bench, config, **{name: inputs[name] for name in LINK.inputs}).metrics
    knows_its_labels_and_its_tokenizer(directory)
    assert metrics["method"] == "static" and set(metrics["candidates"]) == {"static"} and metrics["calibration_texts"] == 20
    kinds = {node.op_type for node in onnx.load(directory / "model.onnx").graph.node}
    assert "DequantizeLinear" in kinds and "DynamicQuantizeLinear" not in kinds
    assert metrics["against_float"]["test"]["agreement"] > 0.95
    by_label = metrics["against_float"]["test"]["agreement_by_label"]
    assert set(by_label) == set(trained.LABELS) and sum(by_label.values()) / 2 == pytest.approx(metrics["against_float"]["test"]["agreement"])


def knows_its_labels_and_its_tokenizer(directory: Path) -> None:
    """Whatever the rounding did to the graph, it still says what it was made for."""
    notes = {entry.key: entry.value for entry in onnx.load(directory / "model.onnx").metadata_props}
    assert json.loads(notes["labels"]) == trained.LABELS and notes["tokenizer"] == sha256_file(directory / "tokenizer.json")


def test_calibration_texts_are_the_same_training_texts_in_any_order(tmp_path: Path) -> None:
    examples = trained.corpus()["labelled_examples"]
    chosen = calibration_texts(examples, 30)
    rows = examples.table("train.parquet").to_pylist()
    assert len(chosen) == 30 and set(chosen) <= {row["text"] for row in rows} and len(calibration_texts(examples, 10_000)) == 280
    random.Random(1).shuffle(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert calibration_texts(trained.changed(examples, directory=tmp_path), 30) == chosen


def test_a_drop_of_more_than_a_point_is_refused(tmp_path: Path) -> None:
    made = trained.quantized().artifact
    rows = made.table("predictions.parquet").to_pylist()
    wrong = next(row for row in rows if row["split"] == "validation" and row["predicted"] == row["label"])  # 1 of 40: 2.5 points
    wrong["predicted"] = "positive" if wrong["label"] == "negative" else "negative"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "predictions.parquet")
    inputs = {"finetuned_model": trained.finetuned().artifact}
    check = LINK.checks[0]
    assert check.blocking and not check.judge(trained.changed(made, directory=tmp_path), inputs).passed
    assert check.judge(trained.changed(made, config={"allowed_drop": 0.03}, directory=tmp_path), inputs).passed


def test_it_runs_without_torch_at_any_batch_and_length() -> None:
    folder = trained.quantized().artifact.directory
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None);"  # as if neither were installed: importing one is an error
        "from pathlib import Path; from llm_assets.serving.engine import OnnxClassifier;"
        f"engine = OnnxClassifier(Path({str(folder)!r}), 1);"
        "assert [len(engine.classify(['好棒' * n] * b)) for n, b in ((1, 1), (3, 5), (40, 2))] == [1, 5, 2]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
