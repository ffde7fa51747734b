"""int8: as good as float within the allowed drop, and refused where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

from llm_assets.links.quantized_model import LINK
from llm_assets_tests.links import trained


def test_it_answers_like_the_float_model_and_passes() -> None:
    outcome = trained.quantized()
    assert all(found.passed for found in outcome.verdicts), outcome.verdicts
    assert outcome.artifact.metrics["against_float"]["test"]["agreement"] > 0.95
    assert {"model.onnx", "tokenizer.json", "serving.json", "predictions.parquet", "plots/size.png"} == set(outcome.artifact.manifest.files)


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
        "import sys; from pathlib import Path; from llm_assets.serving.engine import OnnxClassifier;"
        f"engine = OnnxClassifier(Path({str(folder)!r}), 1);"
        "assert [len(engine.classify(['好棒' * n] * b)) for n, b in ((1, 1), (3, 5), (40, 2))] == [1, 5, 2];"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
