"""Label Studio's JSON: tasks with a prediction that it shows beforehand, the configuration of a project, and its export.

https://labelstud.io/guide/task_format and /guide/predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from llm_assets.training.heads import Problem, parts

FROM, TO = "label", "text"  # the names of the question and of what it is asked about
UNDATED = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Annotated:
    """A task that came back."""

    id: str  # of the answer
    index: int
    text: str
    at: str  # when it was last labelled, ISO 8601
    labels: Mapping[str, str]  # by annotator; what was skipped or left empty is not there


def task(row: Mapping[str, Any], reason: str, problem: Problem) -> dict[str, Any]:
    """A row of traffic as a task, with the model's answer to start from."""
    data = {"text": row["masked"], "answer_id": row["id"], "index": row["index"], "answered": row["label"], "reason": reason}
    prediction = {"model_version": row["release"], "score": row["probability"], "result": [_result(row["label"], problem)]}
    return {"data": data, "predictions": [prediction]}


def project(labels: Sequence[str], problem: Problem) -> str:
    """The labelling configuration of a project for these tasks."""
    if problem == "regression":
        question = f'<Number name="{FROM}" toName="{TO}" required="true"/>'
    else:
        choice = "multiple" if problem == "multi_label" else "single-radio"
        options = "".join(f"\n    <Choice value={quoteattr(label)}/>" for label in labels)
        required = "false" if problem == "multi_label" else "true"  # of several labels none may apply
        question = f'<Choices name="{FROM}" toName="{TO}" choice="{choice}" required="{required}">{options}\n  </Choices>'
    return f'<View>\n  <Text name="{TO}" value="${TO}"/>\n  {question}\n</View>\n'


def read(exported: Mapping[str, Any], problem: Problem) -> Annotated:
    """A task of a JSON export. Raises ``KeyError``, ``TypeError`` or ``AttributeError`` for anything else."""
    data, labels, times = exported["data"], {}, []
    for annotation in exported["annotations"]:
        given = [_label(result) for result in annotation["result"] if result.get("from_name") == FROM]
        if annotation.get("was_cancelled") or not (given or problem == "multi_label"):
            continue
        labels[_annotator(annotation.get("completed_by"))] = given[-1] if given else ""  # of several labels none applies
        times.append(str(annotation.get("updated_at") or annotation.get("created_at") or UNDATED))
    identity = str(data.get("answer_id") or f"label-studio-{exported.get('id')}")
    return Annotated(identity, int(data.get("index") or 0), str(data["text"]), max(times, default=UNDATED), labels)


def _result(label: str, problem: Problem) -> dict[str, Any]:
    number = problem == "regression"
    value: dict[str, Any] = {"number": float(label)} if number else {"choices": parts(label, problem)}
    return {"from_name": FROM, "to_name": TO, "type": "number" if number else "choices", "value": value}


def _label(result: Mapping[str, Any]) -> str:
    value = result["value"]
    return repr(float(value["number"])) if "number" in value else "|".join(value["choices"])


def _annotator(completed_by: Any) -> str:
    """A number in most exports, an object with an e-mail address in some."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id"))
    return str(completed_by)
