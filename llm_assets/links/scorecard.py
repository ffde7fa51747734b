"""What the chain's models are worth, side by side, and the gates that a release must pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import MAJORITY, Classifier
from llm_assets.evaluation.latency import single_text_latency
from llm_assets.evaluation.quality import SCORES, confusion, confusion_by_label, paired_bootstrap
from llm_assets.evaluation.worth import Rows, confidence, worth
from llm_assets.links import baselines, plots
from llm_assets.links.champion import against_champion, not_worse_than_champion, stated
from llm_assets.links.finetuned_model import FINETUNED
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.links.quantized_model import QUANTIZED, drop_within, problem_of
from llm_assets.links.scorecard_page import as_markdown
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_atomic, write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem

TRAININGS = 1  # that each figure rests on; the intervals say nothing of another seed
CLOCK = ("p50_ms", "p99_ms", "texts_per_second", "cost")  # figures that differ from run to run


class ScorecardConfig(Section):
    """How answers are timed, and what the gates ask for."""

    latency_calls: int = Field(60, ge=1, description="single texts timed for each model")
    threads: int = Field(1, ge=1, description="cores the served engine uses for one answer while it is timed")
    margin_over_majority: float = Field(0.15, ge=-1, le=1, description="test score (accuracy, micro F1, R²) above the majority baseline's, at least")
    allowed_drop: float = Field(0.01, ge=0, le=1, description="score on validation that int8 may lose against float; 0.01 is one point")
    allowed_loss: float = Field(
        0.01,
        ge=0,
        le=1,
        description="what a candidate may lose against the champion and still be `not worse`: share of test documents answered right, "
        "0.01 is one point; for numbers share of the champion's mean squared error",
    )


def scorecard(
    office: Office,
    config: ScorecardConfig,
    pretrained_checkpoint: Artifact,
    finetuned_model: Artifact,
    quantized_model: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
) -> Acted:
    """Puts the models and their baselines side by side: quality on the frozen test split, calibration, size, speed and cost.

    Quality comes from the predictions kept with each model, with 95% intervals over documents, and each model is compared,
    document by document, with the baseline that is strongest on the validation split. The time for one text is measured now
    for what can be served (baselines and int8); the float model's was measured when it was made, since loading torch costs
    more than all the rest: ``timed`` says which. Texts a second are those of the run that made the predictions. What a model
    cost is the time of the links that made it, and their largest memory; a baseline's is its own training. The candidate is
    compared with the champion on the documents both were scored on, and both are asked the newest texts of the request log: how
    often they differ there and on the documents is what a canary of the candidate is to expect. Raises ``ValueError`` for a model
    that an earlier release made, whose speed was not measured.
    """
    measured = _measured(finetuned_model, quantized_model)
    problem = problem_of(finetuned_model)
    score = SCORES[problem]
    labels: list[str] = finetuned_model.json("serving.json")["labels"]
    texts = predictions.Examples.read(evaluation_sets).texts
    tested = {name: predictions.read(quantized_model if name == QUANTIZED else finetuned_model, name, "test") for name in measured}
    costs = _costs(pretrained_checkpoint, finetuned_model, quantized_model)
    baseline = _strongest(measured, score)
    models = []
    for number, (name, figures) in enumerate(measured.items()):
        office.progress(number, len(measured), "models")
        model = _served(name, config, finetuned_model, quantized_model)
        models.append(
            {
                "name": name,
                **worth(tested[name], labels, problem),
                "bytes": figures["bytes"],
                **_latency(figures, model, texts, config.latency_calls),
                "texts_per_second": figures["texts_per_second"],
                "cost": costs[name],
                "against_baseline": None if baseline is None or baseline == name else _against(tested[name], tested[baseline], problem),
            }
        )
    record: dict[str, Any] = {
        "chain": office.chain,
        "problem": problem,
        "models": sorted(models, key=lambda model: model[f"test_{score}"]),
        "baseline": baseline,
        "seeds": TRAININGS,
        "split": _split_sizes(labelled_examples, evaluation_sets),
        "seconds": round(finetuned_model.manifest.seconds + quantized_model.manifest.seconds, 1),
        "quantized_model": quantized_model.fingerprint,
        "champion": against_champion(office, quantized_model, problem, config.allowed_loss),
        "rounding": drop_within(quantized_model, finetuned_model, config.allowed_drop).model_dump(mode="json"),
        "margin_over_majority": config.margin_over_majority,
    }
    write_json(office.directory / "scorecard.json", record)
    write_atomic(office.directory / "scorecard.md", as_markdown(record))
    _draw(office, record, tested, labels, problem)
    outcome = [{key: value for key, value in model.items() if key not in CLOCK} for model in record["models"]]
    return Acted(record, digest([quantized_model.fingerprint, outcome, record["split"]])[:24])


def _measured(finetuned_model: Artifact, quantized_model: Artifact) -> dict[str, Any]:
    """What was measured of every model when it was made. Raises ``ValueError`` where an earlier release made one, without its speed."""
    for made in (finetuned_model, quantized_model):
        if not all("texts_per_second" in figures for figures in made.metrics["models"].values()):
            raise ValueError(f"scorecard: {made.link} {made.fingerprint} was made by an earlier release, without its speed: materialize it again")
    return {**finetuned_model.metrics["models"], **quantized_model.metrics["models"]}


def _strongest(measured: Mapping[str, Any], score: str) -> str | None:
    """The baseline with the best score on validation, if there is any; the test split must not choose."""
    names = [name for name in measured if name not in (FINETUNED, QUANTIZED)]
    return max(names, key=lambda name: measured[name]["validation"][score], default=None)


def _served(name: str, config: ScorecardConfig, finetuned_model: Artifact, quantized_model: Artifact) -> Classifier | None:
    """The model ready to answer, or None for one that only torch runs: float, and baselines that the worker trained."""
    if name == QUANTIZED:
        return OnnxClassifier(quantized_model.directory, config.threads)
    return baselines.load(name, finetuned_model.path("baselines"))


def _latency(figures: Mapping[str, Any], model: Classifier | None, texts: list[str], calls: int) -> dict[str, Any]:
    if model is None:
        return {"p50_ms": figures["p50_ms"], "p99_ms": figures["p99_ms"], "timed": "when made"}
    return {**single_text_latency(model.classify, texts, calls), "timed": "now"}


def _costs(pretrained_checkpoint: Artifact, finetuned_model: Artifact, quantized_model: Artifact) -> dict[str, dict[str, float | None]]:
    """Seconds and peak memory that it took to make each model; fitted baselines share a process with others, so only their time is known."""
    others = {name: figures for name, figures in finetuned_model.metrics["models"].items() if name != FINETUNED}
    costs: dict[str, dict[str, float | None]] = {
        name: {"seconds": figures["training_seconds"], "peak_memory_bytes": figures.get("peak_memory_bytes")} for name, figures in others.items()
    }
    apart = sum(figures["training_seconds"] for figures in others.values())
    made = [pretrained_checkpoint.manifest, finetuned_model.manifest, quantized_model.manifest]
    for name, manifests in ((FINETUNED, made[:2]), (QUANTIZED, made)):
        costs[name] = {
            "seconds": round(sum(manifest.seconds for manifest in manifests) - apart, 3),
            "peak_memory_bytes": max(manifest.peak_memory_bytes for manifest in manifests),
        }
    return costs


def _against(rows: Rows, others: Rows, problem: Problem) -> dict[str, Any] | None:
    difference = paired_bootstrap(predictions.merit(rows, problem), predictions.merit(others, problem))
    return None if difference is None else stated(difference)


def _draw(office: Office, record: Mapping[str, Any], tested: Mapping[str, Rows], labels: list[str], problem: Problem) -> None:
    """Scores by model, and where there are labels reliability diagrams and the confusion of what would be served."""
    score = SCORES[problem]
    title = f"Test {score.replace('_', ' ')}"
    plots.bars(office.directory, "models", {model["name"]: model[f"test_{score}"] for model in record["models"]}, title, "of 1")
    if problem != "regression":
        bins = {name: confidence(rows, labels, problem) for name, rows in tested.items()}
        diagrams = {name: ([found.confidence for found in few], [found.accuracy for found in few]) for name, few in bins.items()}
        series = {"as it should be": ([0.0, 1.0], [0.0, 1.0]), **diagrams}
        plots.curves(office.directory, "reliability", series, "Reliability", "probability of the answer", "share right")
        rows, count = tested[QUANTIZED], confusion if problem == "single_label" else confusion_by_label
        counts = count([row["label"] for row in rows], [row["predicted"] for row in rows], labels)
        axes = ("predicted", "true label") if problem == "single_label" else ("what became of it", "label")
        plots.matrix(office.directory, "confusion", counts, f"Test documents of {QUANTIZED}", *axes)


def _split_sizes(labelled_examples: Artifact, evaluation_sets: Artifact) -> dict[str, int]:
    splits = evaluation_sets.table("evaluation.parquet", ["split"])["split"].to_pylist()
    return {"train": labelled_examples.table("train.parquet", ["doc_id"]).num_rows, **{split: splits.count(split) for split in predictions.SPLITS}}


def _beats_majority(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    score = f"test_{SCORES[record.get('problem', 'single_label')]}"
    found = {model["name"]: model[score] for model in record["models"]}
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


LINK = Link(
    name="scorecard",
    version=3,
    make=scorecard,
    config=ScorecardConfig,
    inputs=("pretrained_checkpoint", "finetuned_model", "quantized_model", "labelled_examples", "evaluation_sets"),
    stage="model",
    role="data_scientist",
    kinds=("python",),
    checks=(
        Check("beats_majority", "The finetuned and the quantized model beat the majority baseline by the stated margin.", _beats_majority),
        Check("int8_within", "The quantized model loses at most the allowed accuracy against the float model.", _int8_within),
        Check("not_worse_than_champion", "The candidate is not worse than the champion on the same documents.", not_worse_than_champion),
    ),
    act=True,
)
