from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from llm_assets.operation.label_studio import UNDATED, project, read, task

ROW = {"id": "classify-1", "index": 2, "masked": "房间干净", "label": "positive", "probability": 0.6, "release": "tiny-1"}


def answered(value: dict[str, Any], by: Any = 7, **fields: Any) -> dict[str, Any]:
    """An annotation as Label Studio 1.2x exports it."""
    result = {"id": "x1", "from_name": "label", "to_name": "text", "type": "choices", "origin": "manual", "value": value}
    return {"id": 1, "completed_by": by, "result": [result], "was_cancelled": False, "created_at": "2026-11-20T12:00:00Z", **fields}


def exported(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 41, "data": {**task(ROW, "random", "single_label")["data"], **data}, "annotations": list(annotations), "predictions": []}


def test_a_task_shows_the_models_answer_beforehand() -> None:
    made = task(ROW, "uncertainty", "single_label")
    assert made["data"] == {"text": "房间干净", "answer_id": "classify-1", "index": 2, "answered": "positive", "reason": "uncertainty"}
    (prediction,) = made["predictions"]
    result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["positive"]}}
    assert prediction == {"model_version": "tiny-1", "score": 0.6, "result": [result]}
    several = task({**ROW, "label": "price|room"}, "random", "multi_label")["predictions"][0]["result"][0]
    assert several["value"] == {"choices": ["price", "room"]}
    assert task({**ROW, "label": "2.5"}, "random", "regression")["predictions"][0]["result"][0]["value"] == {"number": 2.5}


def test_the_project_asks_what_the_tasks_answer() -> None:
    view = ElementTree.fromstring(project(["a<b", "c"], "single_label"))
    text, choices = view
    assert (text.get("name"), text.get("value"), choices.get("name"), choices.get("toName")) == ("text", "$text", "label", "text")
    assert [choice.get("value") for choice in choices] == ["a<b", "c"] and choices.get("choice") == "single-radio"
    assert ElementTree.fromstring(project(["a", "b"], "multi_label"))[1].get("choice") == "multiple"
    assert ElementTree.fromstring(project(["value"], "regression"))[1].tag == "Number"


def test_an_export_is_read_by_annotator() -> None:
    positive, negative = {"choices": ["positive"]}, {"choices": ["negative"]}
    skipped = answered(negative, by=9, was_cancelled=True)
    changed = answered(negative, by={"id": 8, "email": "b@example.org"}, updated_at="2026-11-21T09:00:00Z")
    found = read(exported(answered(positive), changed, skipped), "single_label")
    assert found.labels == {"7": "positive", "b@example.org": "negative"} and found.at == "2026-11-21T09:00:00Z"
    assert (found.id, found.index, found.text) == ("classify-1", 2, "房间干净")
    assert read(exported(answered({"choices": ["room", "price"]})), "multi_label").labels == {"7": "room|price"}
    assert read(exported(answered({"number": 3})), "regression").labels == {"7": "3.0"}
    nothing = {**answered(positive), "result": []}
    assert read(exported(nothing), "multi_label").labels == {"7": ""} and read(exported(nothing), "single_label").labels == {}
    assert read(exported(), "single_label").at == UNDATED


def test_a_text_from_elsewhere_gets_a_name_of_its_own() -> None:
    foreign = {"id": 41, "data": {"text": "别处的文本"}, "annotations": [answered({"choices": ["positive"]})]}
    found = read(foreign, "single_label")
    assert (found.id, found.index) == ("label-studio-41", 0)
    with pytest.raises(KeyError):
        read({"text": "no export"}, "single_label")
