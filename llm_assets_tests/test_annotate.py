"""`llm-assets annotate` over a release and its traffic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_assets.cli import app
from llm_assets.corpus.batches import batch_folder, read_batches
from llm_assets.operation import traffic
from llm_assets.operation.annotation import AnnotationError
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.labelling import read_queue, write_label
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.operation.released import release, texts
from llm_assets_tests.operation.traffic import line, write_log


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    release(tmp_path, texts(120, 1), chain="reviews")  # too few for a profile, so nothing is novel
    write_log(tmp_path, [line(n, f"喜欢 good {n}", labels=["positive"], release="reviews-1") for n in range(30)], chain="reviews")
    for path in dated_files(log_folder(tmp_path), "reviews"):
        traffic.write_day(path, traffic.traffic_path(tmp_path, "reviews", path.stem))
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["annotate", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_out_and_back(home: Path) -> None:
    tasks, exported = home / "tasks.json", home / "export.json"
    said = run("export", "reviews", str(tasks))
    assert said.startswith(f"30 texts in {tasks} (uncertainty 25, random 5); project in {tasks}.xml")
    assert "<Choices" in Path(f"{tasks}.xml").read_text(encoding="utf-8")
    labelled = json.loads(tasks.read_text(encoding="utf-8"))
    for number, task in enumerate(labelled):
        label = "negative" if number % 2 else "positive"
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}]
        task["annotations"] = [{"completed_by": who, "result": result} for who in (1, 2)]
    exported.write_text(json.dumps(labelled), encoding="utf-8")
    said = run("import", "reviews", str(exported))
    assert "1 and 2 on 30 texts: Cohen's kappa 1.00" in said and "30 texts in batch" in said
    assert len(read_batches(batch_folder(home, "reviews"))) == 30


def test_to_the_page_and_back(home: Path) -> None:
    assert run("queue", "reviews").startswith("30 texts at http://127.0.0.1:8000/label (uncertainty 25, random 5)")
    queue = read_queue(home, "reviews")
    assert queue and len(queue.tasks) == 30
    for number, task in enumerate(queue.tasks[:20]):
        for annotator in ("Ann", "Bob"):
            write_label(home, "reviews", task, annotator, "anonymous", "negative" if number % 2 else "positive")
    said = run("import", "reviews")
    assert "Ann and Bob on 20 texts: Cohen's kappa 1.00" in said and "20 texts in batch" in said
    assert len(read_batches(batch_folder(home, "reviews"))) == 20
    left = read_queue(home, "reviews")
    assert left and left.tasks == queue.tasks[20:]


def test_what_is_wrong_is_said(home: Path) -> None:
    (home / "wrong.json").write_text("no JSON", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"wrong\.json is no JSON"):
        run("import", "reviews", str(home / "wrong.json"))
