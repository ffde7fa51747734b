"""What the chain's models are worth, side by side, and the gates that a release must pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import MAJORITY, TFIDF, Classifier, Majority, TfidfLogisticRegression
from llm_assets.evaluation.latency import single_text_latency
from llm_assets.evaluation.quality import paired_bootstrap
from llm_assets.links import plots
from llm_assets.links.finetuned_model import FINETUNED
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.links.quantized_model import QUANTIZED, drop_within
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.releases import champion
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_atomic, write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.journal import Journal
from llm_assets.store.verdict import Verdict

COLUMNS = ("test_accuracy", "test_macro_f1", "bytes", "p50_ms", "p99_ms")


class ScorecardConfig(Section):
    """How answers are timed, and what the gates ask for."""

    latency_calls: int = Field(60, ge=1, description="single texts timed for each model")
    threads: int = Field(1, ge=1, description="cores the served engine uses for one answer while it is timed")
    margin_over_majority: float = Field(0.15, ge=-1, le=1, description="test accuracy above the majority baseline's, at least")
    allowed_drop: float = Field(0.01, ge=0, le=1, description="validation accuracy that int8 may lose against float; 0.01 is one point")


def scorecard(
    office: Office,
    config: ScorecardConfig,
    finetuned_model: Artifact,
    quantized_model: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
) -> Acted:
    """Puts the models and their baselines side by side: accuracy and macro F1 on the frozen test split, size, latency.

    Quality comes from the predictions kept with each model. The time for one text is measured now for what can be served
    (baselines and int8); the float model's was measured when it was made, since loading torch costs more than all the rest:
    ``timed`` says which. The candidate is compared with the champion on the documents both were scored on.
    """
    texts = predictions.Examples.read(evaluation_sets).texts
    measured = finetuned_model.metrics["models"] | quantized_model.metrics["models"]
    models = []
    for number, (name, figures) in enumerate(measured.items()):
        office.progress(number, len(measured), "models")
        models.append(_row(name, figures, _served(name, config, finetuned_model, quantized_model), texts, config.latency_calls))
    rounding = drop_within(quantized_model, finetuned_model, config.allowed_drop)
    record: dict[str, Any] = {
        "chain": office.chain,
        "models": sorted(models, key=lambda model: model["test_accuracy"]),
        "split": _split_sizes(labelled_examples, evaluation_sets),
        "seconds": round(finetuned_model.manifest.seconds + quantized_model.manifest.seconds, 1),
        "quantized_model": quantized_model.fingerprint,
        "champion": _against_champion(office, quantized_model),
        "rounding": rounding.model_dump(mode="json"),
        "margin_over_majority": config.margin_over_majority,
    }
    write_json(office.directory / "scorecard.json", record)
    write_atomic(office.directory / "scorecard.md", as_markdown(record))
    plots.bars(office.directory, "models", {model["name"]: model["test_accuracy"] for model in record["models"]}, "Test accuracy", "share of texts")
    outcome = [{key: value for key, value in model.items() if key not in ("p50_ms", "p99_ms")} for model in record["models"]]
    return Acted(record, digest([quantized_model.fingerprint, outcome, record["split"]])[:24])


def as_markdown(record: Mapping[str, Any]) -> str:
    """The models as a Markdown table, worst first."""
    lines = [f"# {record['chain']}", "", "| model | accuracy | macro F1 | MB | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for model in record["models"]:
        accuracy, f1, size, p50, p99 = (model[column] for column in COLUMNS)
        lines.append(f"| {model['name']} | {accuracy:.3f} | {f1:.3f} | {size / 1e6:.2f} | {p50:.2f} | {p99:.2f} |")
    split = record["split"]
    lines += ["", f"{split['train']} training, {split['validation']} validation and {split['test']} test documents."]
    return "\n".join(lines) + "\n"


def _served(name: str, config: ScorecardConfig, finetuned_model: Artifact, quantized_model: Artifact) -> Classifier | None:
    """The model ready to answer, or None for the float model, which only torch runs."""
    if name == QUANTIZED:
        return OnnxClassifier(quantized_model.directory, config.threads)
    if name == MAJORITY:
        return Majority.load(finetuned_model.path("baselines"))
    if name == TFIDF:
        return TfidfLogisticRegression.load(finetuned_model.path("baselines"))
    return None


def _row(name: str, figures: Mapping[str, Any], model: Classifier | None, texts: list[str], calls: int) -> dict[str, Any]:
    if model is None:
        latency, timed = {key: figures[key] for key in ("p50_ms", "p99_ms")}, "when made"
    else:
        latency, timed = single_text_latency(model.classify, texts, calls), "now"
    test = figures["test"]
    return {"name": name, "test_accuracy": test["accuracy"], "test_macro_f1": test["macro_f1"], "bytes": figures["bytes"], **latency, "timed": timed}


def _split_sizes(labelled_examples: Artifact, evaluation_sets: Artifact) -> dict[str, int]:
    splits = evaluation_sets.table("evaluation.parquet", ["split"])["split"].to_pylist()
    return {"train": labelled_examples.table("train.parquet", ["doc_id"]).num_rows, **{split: splits.count(split) for split in predictions.SPLITS}}


def _against_champion(office: Office, candidate: Artifact) -> dict[str, Any]:
    """The candidate's test accuracy minus the champion's, over the documents both were scored on."""
    newest = champion(Journal(office.home / "journal" / office.chain / "release.jsonl"))
    if newest is None:
        return {"release": None, "found": "there is no champion yet"}
    if newest["quantized_model"] == candidate.fingerprint:
        return {"release": newest["release"], "found": "the candidate is the champion"}
    directory = office.home / newest["directory"]
    if not (directory / "predictions.parquet").is_file():
        return {"release": newest["release"], "found": "the champion's predictions are gone from the store, so nothing could be compared"}
    before = predictions.read(Artifact(directory, candidate.manifest), QUANTIZED, "test")
    difference = paired_bootstrap(predictions.correct(predictions.read(candidate, QUANTIZED, "test")), predictions.correct(before))
    if difference is None:
        return {"release": newest["release"], "found": "the champion was scored on other test documents, so nothing could be compared"}
    return {
        "release": newest["release"],
        "found": (
            f"{100 * difference.mean:+.2f} points against {newest['release']} on {difference.documents} common test documents, "
            f"95% interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        ),
        "documents": difference.documents,
        "difference": difference.mean,
        "interval": [difference.low, difference.high],
        "is_clearly_worse": difference.is_clearly_worse,
    }


def _beats_majority(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    found = {model["name"]: model["test_accuracy"] for model in record["models"]}
    needed = found.get(MAJORITY, 1.0) + record["margin_over_majority"]
    return Verdict(
        check="beats_majority",
        passed=found[FINETUNED] >= needed and found[QUANTIZED] >= needed,
        description=(
            f"finetuned {found[FINETUNED]:.3f}, quantized {found[QUANTIZED]:.3f}; at least {needed:.3f} is asked for"
            + ("" if MAJORITY in found else ": no majority baseline was measured, name it under finetuned_model.baselines")
        ),
        values=found,
    )


def _int8_within(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    return Verdict.model_validate(record["rounding"])


def _not_worse_than_champion(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    compared = record["champion"]
    return Verdict(
        check="not_worse_than_champion",
        passed=not compared.get("is_clearly_worse", False),
        description=compared["found"],
        values=dict(compared),
    )


LINK = Link(
    name="scorecard",
    version=1,
    make=scorecard,
    config=ScorecardConfig,
    inputs=("finetuned_model", "quantized_model", "labelled_examples", "evaluation_sets"),
    stage="model",
    role="evaluation",
    kinds=("python",),
    checks=(
        Check("beats_majority", "The finetuned and the quantized model beat the majority baseline by the stated margin.", _beats_majority),
        Check("int8_within", "The quantized model loses at most the allowed accuracy against the float model.", _int8_within),
        Check("not_worse_than_champion", "The candidate is not clearly worse than the champion on the same documents.", _not_worse_than_champion),
    ),
    act=True,
)
