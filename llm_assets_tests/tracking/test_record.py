from __future__ import annotations

import math
from pathlib import Path

from llm_assets.tracking.record import RunRecord, record_of
from llm_assets_tests.tracking.made import STEPS, make


def test_a_record_holds_recipe_figures_curve_and_inputs(tmp_path: Path) -> None:
    record = record_of("tiny", make(tmp_path, "aaa"))
    assert (record.chain, record.link, record.fingerprint, record.dagster_run_id, record.trained) == ("tiny", "finetuned_model", "aaa", "run-1", True)
    assert record.ended_ms - record.started_ms == 2500
    assert record.params["config.optimizer.lr"] == "0.01" and record.params["seed"] == "7"
    assert record.metrics["accuracy.test"] == 0.75 and record.metrics["epochs"] == 3 and record.metrics["cost.core_seconds"] == 4
    assert record.metrics["noise.差 -_ 好"] == 0.1  # a label in a name, without the sign that MLflow refuses
    assert not {"best", "model"} & record.metrics.keys()
    assert len(record.curve) == 2 * STEPS + STEPS // 100
    assert (100, "validation_loss", 0.02) in record.curve and not any(name == "step" for _, name, _ in record.curve)
    assert record.inputs == [("tokens", "beef", "tokens/feed")]
    assert record.tags["dagster.asset_key"] == "tiny/finetuned_model" and record.tags["mlflow.source.git.commit"] == "c0ffee"


def test_a_link_that_is_not_trained_is_recorded_as_such(tmp_path: Path) -> None:
    assert not record_of("tiny", make(tmp_path, "aaa", trained=False)).trained


def test_a_record_survives_the_disk_with_figures_that_json_lacks(tmp_path: Path) -> None:
    record = record_of("tiny", make(tmp_path, "aaa"))
    record.metrics["loss"] = math.inf
    read = RunRecord.model_validate_json(record.model_dump_json())
    assert math.isnan(read.metrics["diverged"]) and read.metrics["loss"] == math.inf
    assert read.model_dump(exclude={"metrics"}) == record.model_dump(exclude={"metrics"})
