"""A classifier finetuned from the pretrained encoder, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import MAJORITY, TFIDF
from llm_assets.evaluation.lengths import reading
from llm_assets.evaluation.quality import SCORES, confusion, constant_score
from llm_assets.links import baselines, plots
from llm_assets.links.baselines import Baseline, BaselineTraining
from llm_assets.links.learnable import learnt_examples, refuse_unlearnable
from llm_assets.links.link import Bench, Check, Link, Made
from llm_assets.links.pretrained_checkpoint import weights_finite
from llm_assets.links.tokenizer import load
from llm_assets.links.tokens import special_token_ids
from llm_assets.links.training import TeachingSection, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict
from llm_assets.training.encoders import refuse_unfit
from llm_assets.training.grams import Grams
from llm_assets.training.heads import METRICS, Problem, parts
from llm_assets.training.job import Classification, TrainingJob

FINETUNED = "finetuned"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class FinetunedModelConfig(TeachingSection):
    """How the classifier is trained, and what it is compared with."""

    problem: Problem = Field("single_label", description="what is answered: one label, several, or a number; as in labelled_examples")
    max_length: int = Field(128, ge=8, description="tokens that the model reads at once, in training and in service")
    long_texts: Literal["cut", "windows"] = Field(
        "cut", description="what becomes of longer texts, in training and in service: cut off, or read in windows whose answers are averaged"
    )
    window_overlap: int = Field(32, ge=0, description="tokens that two windows of a text share")
    epochs: float = Field(2.0, gt=0, description="passes over the labelled examples")
    patience: int = Field(0, ge=0, description="evaluations without a better one after which training ends; 0: it never ends early")
    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the embeddings, the layers and before the classifier")
    grams: Grams = Field(Grams(), description="token n-grams whose linear model is added to the encoder, in one graph")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    baselines: tuple[Baseline, ...] = Field(
        (MAJORITY, TFIDF), description="fitted and scored in the same run; conv1d, lstm and gru are trained by the same worker"
    )
    trained_baselines: BaselineTraining = Field(BaselineTraining(), description="how conv1d, lstm and gru are trained")
    margin_over_majority: float = Field(
        0.15, ge=-1, le=1, description="score (accuracy, micro F1, R²) on the validation split above the best constant answer's, at least"
    )

    @property
    def overlap(self) -> int | None:
        """What two windows share, or None where longer texts are cut."""
        return self.window_overlap if self.long_texts == "windows" else None

    @model_validator(mode="after")
    def _windows_advance(self) -> FinetunedModelConfig:
        if self.long_texts == "windows" and self.window_overlap > self.max_length // 2:
            raise ValueError(f"window_overlap is {self.window_overlap}: at most half of max_length, which is {self.max_length}")
        return self

    @model_validator(mode="after")
    def _grams_classify(self) -> FinetunedModelConfig:
        if self.grams.longest and self.problem == "regression":
            raise ValueError("grams add to the scores of labels, and problem is regression: set grams.longest to 0")
        return self


def finetuned_model(
    bench: Bench,
    config: FinetunedModelConfig,
    pretrained_checkpoint: Artifact,
    tokenizer: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    compute: Mapping[str, Any],
) -> Made:
    """Finetunes the encoder into a text classifier and scores it beside its baselines on the same frozen documents.

    With `grams` the scores of a linear model over token n-grams are added to the encoder's, weighed on the validation split.
    The evaluation with the best validation score is kept, and the check asks for a margin on validation too: the test
    split is scored here and judged by the scorecard alone. The saved model is loaded again and scored in torch, as are a
    majority vote, TF-IDF with logistic regression and whatever other baselines are asked for; every prediction is kept.
    Evaluation documents with a label that no example teaches are left out and counted, and so is what `max_length` cuts off
    each split, or how many windows it is read in.
    """
    labels: list[str] = labelled_examples.json("labels.json")
    known = labelled_examples.table("train.parquet", ["text", "label"]).to_pydict()
    refuse_unlearnable(config.problem, known["label"], labels, {"labelled_examples": labelled_examples, "evaluation_sets": evaluation_sets})
    encoder = load(tokenizer.directory)
    padding = special_token_ids(tokenizer)["pad_token"]
    refuse_unfit(pretrained_checkpoint.directory, max(encoder.get_vocab().values()) + 1, padding, config.max_length)
    examples = learnt_examples(evaluation_sets, labels, config.problem)
    texts = {"train": known["text"], **{split: examples.of(split).texts for split in predictions.SPLITS}}
    lengths = {split: reading(encoder, found, config.max_length, config.overlap) for split, found in texts.items()}
    job = _job(bench, config, labels, tokenizer, labelled_examples, examples, pretrained_checkpoint.directory, lengths["train"]["samples"])
    figures = train(bench, job, config.processes, compute)
    for name in TOKENIZER_FILES:
        if (source := tokenizer.directory / name).exists():
            (bench.directory / name).write_bytes(source.read_bytes())
    serving = {"max_length": config.max_length, "overlap": config.overlap, "padding": padding, "problem": config.problem, "labels": labels}
    write_json(bench.directory / "serving.json", serving)
    if config.grams.longest:
        from llm_assets.training.summed import Labelled, add_grams

        assert isinstance(job.objective, Classification)
        validation = examples.of("validation")
        learnt, held_out = Labelled(known["text"], known["label"]), Labelled(validation.texts, validation.labels)
        figures["factors"] = add_grams(bench.directory, config.grams, job.objective, learnt, held_out, bench.progress)
    scores = _score(bench, config, job, known, lengths["train"]["samples"], examples, compute)
    left_out = len(predictions.Examples.read(evaluation_sets).doc_ids) - len(examples.doc_ids)
    return Made({**scores, **figures, "long_texts": lengths, "evaluation_documents_left_out": left_out})


def _job(
    bench: Bench, config: FinetunedModelConfig, labels: Sequence[str], tokenizer: Artifact, labelled_examples: Artifact,
    examples: predictions.Examples, start_from: Path, samples: int,
) -> TrainingJob:  # fmt: skip
    """The job that finetunes the encoder of ``start_from`` on so many samples."""
    return TrainingJob(
        objective=Classification(
            train=labelled_examples.path("train.parquet"),
            evaluation=examples.write(bench.scratch / "evaluation.parquet"),
            labels=tuple(labels),
            problem=config.problem,
            max_length=config.max_length,
            overlap=config.overlap,
            dropout=config.dropout,
            patience=config.patience,
        ),
        tokenizer=tokenizer.directory,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=start_from,
        **config.updates(samples),
        seed=bench.seed,
        **config.optimization(),
    )


def _score(
    bench: Bench, config: FinetunedModelConfig, job: TrainingJob, known: Mapping[str, Sequence[str]], samples: int,
    examples: predictions.Examples, compute: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Make the baselines, score every model, write predictions and pictures; returns the metrics."""
    import pyarrow.parquet

    from llm_assets.evaluation.torch_classifier import TorchClassifier

    figures, rows = baselines.scored(FINETUNED, TorchClassifier(bench.directory), examples, bench.progress)
    models: dict[str, Any] = {FINETUNED: {**figures, "bytes": (bench.directory / "model.safetensors").stat().st_size}}
    folder = bench.directory / "baselines"
    folder.mkdir()
    for number, name in enumerate(config.baselines):
        bench.progress(number, len(config.baselines), "baselines made")
        if name in baselines.FITTED:
            models[name], found = baselines.fitted(name, folder, known, examples, config.problem)
        else:
            other = job.model_copy(
                update={
                    "objective": job.objective.model_copy(update={"architecture": name}),
                    "start_from": None,
                    "output": folder / name,
                    "scratch": bench.scratch / name,
                    "learning_rate": config.trained_baselines.learning_rate,
                    **config.updates(samples, config.trained_baselines.epochs),
                }
            )
            models[name], found = baselines.trained(name, bench, other, config.processes, compute, examples)
        rows += found
    predictions.write(bench.directory / "predictions.parquet", rows)
    _draw(bench, config.problem, models, pyarrow.parquet.read_table(bench.directory / "curve.parquet").to_pylist())
    test = [row for row in rows if row["model"] == FINETUNED and row["split"] == "test"]
    pairs = ([row["label"] for row in test], [row["predicted"] for row in test])
    one_label = {"confusion": confusion(*pairs, sorted(set(known["label"])))} if config.problem == "single_label" else {}
    return {"models": models, **one_label, "training_examples": len(known["label"])}


def _draw(bench: Bench, problem: Problem, models: Mapping[str, Any], curve: list[dict[str, Any]]) -> None:
    """The loss and the validation metric over the updates, and the test scores side by side."""
    metric = METRICS[problem]
    for name, column, title, unit in (
        ("loss", "loss", "Loss of the head", "a text"),
        (metric, f"validation_{metric}", "Validation", metric.replace("_", " ")),
    ):
        rows = [row for row in curve if row.get(column) is not None]
        series = {column.replace("_", " "): ([row["step"] for row in rows], [row[column] for row in rows])}
        plots.curves(bench.directory, name, series, title, "step", unit)
    score = SCORES[problem]
    plots.bars(bench.directory, "models", {name: model["test"][score] for name, model in models.items()}, "Test split", score.replace("_", " "))


def _beats_majority(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    """Against the best constant answer on the validation split itself, which no constant answer of the training's beats."""
    config = artifact.manifest.recipe["config"]
    problem, margin = config.get("problem", "single_label"), config["margin_over_majority"]
    rows = predictions.read(artifact, FINETUNED, "validation")
    constant, score = constant_score([row["label"] for row in rows], problem), SCORES[problem]
    found = predictions.score(rows, "validation", problem)
    return Verdict(
        check="beats_majority",
        passed=found >= constant + margin,
        description=f"{found:.3f} on {len(rows)} validation documents; the best constant answer {constant:.3f}, {margin:+.2f} above it is asked for",
        values={f"validation_{score}": found, f"constant_{score}": constant, "margin": margin},
    )


def _every_label_judged(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    problem, labels = artifact.manifest.recipe["config"].get("problem", "single_label"), artifact.json("serving.json")["labels"]
    rows = {split: predictions.read(artifact, FINETUNED, split) for split in predictions.SPLITS}
    found = {split: {name for row in chosen for name in parts(row["label"], problem)} for split, chosen in rows.items()}
    missing = {split: sorted(set(labels) - names) for split, names in found.items()}
    return Verdict(
        check="every_label_judged",
        passed=not any(missing.values()),
        description=f"{len(labels)} labels; in no document of "
        + ", of ".join(f"{split}: {', '.join(names) or 'none'}" for split, names in missing.items()),
        values=missing,
    )


def _every_document_scored(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    problem = artifact.manifest.recipe["config"].get("problem", "single_label")
    expected = set(predictions.Examples.read(inputs["evaluation_sets"], artifact.json("serving.json")["labels"], problem).doc_ids)
    table = artifact.table("predictions.parquet", ["model", "doc_id"]).to_pylist()
    names = sorted({row["model"] for row in table})
    missing = {name: len(expected - {row["doc_id"] for row in table if row["model"] == name}) for name in names}
    return Verdict(
        check="every_document_scored",
        passed=FINETUNED in names and not any(missing.values()),
        description=f"{len(expected)} evaluation documents with a label learnt; without a prediction: {missing or 'all, no model scored any'}",
        values=missing,
    )


LINK = Link(
    name="finetuned_model",
    version=3,
    make=finetuned_model,
    config=FinetunedModelConfig,
    inputs=("pretrained_checkpoint", "tokenizer", "labelled_examples", "evaluation_sets", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface", "scikitlearn"),
    checks=(
        Check("beats_majority", "The classifier beats the best constant answer on the validation split by the stated margin.", _beats_majority),
        Check("every_document_scored", "Every model compared was scored on every evaluation document whose label it learns.", _every_document_scored),
        Check("every_label_judged", "Both evaluation splits hold documents of every label learnt.", _every_label_judged, blocking=False),
        Check("weights_finite", "No weight is infinite or not a number.", weights_finite),
    ),
    trained=True,
    libraries=("torch", "transformers", "deepspeed", "safetensors", "scikit-learn", "datasets"),
)
