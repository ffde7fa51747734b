"""The link labelled_examples: what the classifier is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from llm_assets.corpus.batches import PROVENANCES
from llm_assets.corpus.documents import SAMPLES, domains, text_key
from llm_assets.corpus.pii import excerpt
from llm_assets.links import pages
from llm_assets.links.feedback_examples import Feedback, as_recipe, evaluated, feedback_examples, observe_feedback
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem, canonical, parts

if TYPE_CHECKING:
    import pyarrow as pa

    from llm_assets.evaluation.label_noise import LabelNoise


class LabelledExamplesConfig(Section):
    """Which labelled documents are trained on."""

    problem: Problem = Field(
        "single_label", description="what a label is: one name, several with a bar between them (`room|price`; empty: none applies), or a number"
    )
    labels: list[str] | None = Field(None, min_length=2, description="only documents with these; none: every label found")
    minimum_share: float = Field(0.1, ge=0, le=0.5, description="the check fails when a label has a smaller share of the examples")
    noise_folds: int = Field(3, ge=0, le=20, description="parts of the cross-validation that estimates label noise; 0: not estimated")
    drop_suspects: bool = Field(False, description="whether examples whose label is probably wrong are left out")
    maximum_noise: float = Field(0.2, ge=0, le=1, description="the check warns when more of the labels are estimated to be wrong")
    feedback: Feedback = Field(Feedback(), description="examples that came out of service, learned from beside the corpus's")

    def recipe(self) -> dict[str, Any]:
        """All but where the batches of feedback stand."""
        return as_recipe(super().recipe(), self.feedback)

    def unread(self) -> tuple[str, ...]:
        """Only feedback is compared with the evaluation sets: the clean corpus was already."""
        return () if self.feedback.folder else ("evaluation_sets",)

    @model_validator(mode="after")
    def _suspects_are_known(self) -> Self:
        if self.problem == "regression" and self.labels:
            raise ValueError("labelled_examples: labels name what a text may be, but a regression's labels are numbers; leave them out")
        if self.problem != "single_label" and self.drop_suspects:
            raise ValueError(f"labelled_examples: drop_suspects is for texts with one label each, the problem is {self.problem}; leave it out")
        if self.drop_suspects and self.noise_folds < 2:
            raise ValueError("labelled_examples: drop_suspects needs label noise to be estimated; set noise_folds to 2 or more")
        if self.noise_folds == 1:
            raise ValueError("labelled_examples: noise_folds is 1, which leaves nothing to train on; set it to 0, or to 2 or more")
        return self


def observe(config: LabelledExamplesConfig) -> dict[str, Any]:
    """The batches of feedback, where they are learned from."""
    return observe_feedback(config.feedback)


def labelled_examples(bench: Bench, config: LabelledExamplesConfig, clean_corpus: Artifact, evaluation_sets: Artifact | None = None) -> Made:
    """Collects the labelled documents of the clean corpus as training examples.

    The clean corpus holds neither duplicates nor anything of the evaluation sets, so the examples do not either. A text
    that stands with two labels is left out and counted: nobody could learn which is right. How many of the other labels
    are wrong is estimated by confident learning, where each text has one; `suspects.parquet` names the doubtful ones.
    `provenance` is the source. Several labels of a text are written in alphabetical order. With `feedback`, texts that users
    corrected or annotators labelled join them, compared with the evaluation sets like any other text; all of the corpus stays.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    documents, outside = _labelled(bench, config, clean_corpus)
    disputed = _disputed(documents["text"].to_pylist(), documents["label"].to_pylist())
    examples = documents.take(pa.array([index for index in range(len(documents)) if index not in disputed], pa.int64()))
    examples, joined = _with_feedback(bench, config, examples, clean_corpus, evaluation_sets)
    noise, metrics = _noise(bench, config, examples)
    _suspects(bench.directory, examples, noise)
    if noise is not None and config.drop_suspects:
        dropped = set(noise.suspects.tolist())
        examples = examples.take(pa.array([index for index in range(len(examples)) if index not in dropped], pa.int64()))
    pq.write_table(examples, bench.directory / "train.parquet")
    named = [parts(label, config.problem) for label in examples["label"].to_pylist()]
    domain = [str(name) for name in examples["domain"].to_pylist()]
    counts = dict(sorted(Counter(name for names in named for name in names).items()))
    pairs = Counter((name, place) for names, place in zip(named, domain, strict=True) for name in names)
    both = {f"{one} / {other}": count for (one, other), count in sorted(pairs.items())}
    write_json(bench.directory / "labels.json", list(counts))
    if config.problem == "regression":
        histogram(bench.directory, "labels", [float(label) for label in examples["label"].to_pylist()], "Labels of the examples", "label")
    else:
        bars(bench.directory, "labels", counts, "Examples of each label", "documents")
    bars(bench.directory, "labels_by_domain", both, "Examples of each label and domain", "documents")
    histogram(bench.directory, "lengths", pc.utf8_length(examples["text"]).to_pylist(), "Length of the examples", "characters")
    return Made(
        metrics={
            "examples": len(examples),
            "labels": counts,
            "outside": outside,
            "contradictory_labels": len(disputed),
            "domains": dict(sorted(Counter(domain).items())),
            "labels_by_domain": both,
            "provenance": dict(sorted(Counter(examples["provenance"].to_pylist()).items())),
            **joined,
            **metrics,
        }
    )


def _with_feedback(
    bench: Bench, config: LabelledExamplesConfig, examples: pa.Table, clean_corpus: Artifact, evaluation_sets: Artifact | None
) -> tuple[pa.Table, dict[str, Any]]:
    """The examples with those from service after them, and the metrics of these; as they are where none are asked for."""
    import pyarrow as pa

    if not config.feedback.folder:
        return examples, {}
    assert evaluation_sets is not None
    more, left_out = feedback_examples(config.feedback, examples, config.labels, config.problem, clean_corpus, evaluation_sets, bench.scratch)
    return pa.concat_tables([examples, more]), {"feedback": {"examples": len(more), "left_out": left_out}}


def _labelled(bench: Bench, config: LabelledExamplesConfig, clean_corpus: Artifact) -> tuple[pa.Table, dict[str, int]]:
    """The documents with a label of those declared, and how many stand with each other label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["doc_id", "text", "label", "metadata", "source"]
    schema = pa.schema([(name, pa.string()) for name in ("doc_id", "text", "label", "domain", "provenance")])
    tables, outside, read, total = [schema.empty_table()], Counter[str](), 0, clean_corpus.rows("documents.parquet")
    for batch in clean_corpus.batches("documents.parquet", columns):
        read += len(batch)
        kept = pa.Table.from_batches([batch]).filter(pc.is_valid(batch["label"]))
        labels = [canonical(label, config.problem) for label in kept["label"].to_pylist()]
        foreign = [config.labels is not None and not set(parts(label, config.problem)) <= set(config.labels) for label in labels]
        outside.update(label for label, is_foreign in zip(labels, foreign, strict=True) if is_foreign)
        domain = pa.array(domains(kept["metadata"].to_pylist()), pa.string())
        table = pa.table([kept["doc_id"], kept["text"], pa.array(labels, pa.string()), domain, kept["source"]], schema=schema)
        tables.append(table.filter(pc.invert(pa.array(foreign, pa.bool_()))))
        bench.progress(read, total, "documents")
    return pa.concat_tables(tables), dict(sorted(outside.items()))


def _disputed(texts: list[str], labels: list[str]) -> set[int]:
    """The indices of texts that stand, punctuation aside, with more than one label."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        places[text_key(text)].append(index)
    return {index for group in places.values() if len({labels[index] for index in group}) > 1 for index in group}


def _noise(bench: Bench, config: LabelledExamplesConfig, examples: pa.Table) -> tuple[LabelNoise | None, dict[str, Any]]:
    """What confident learning says of the labels, if it can say anything, and the metrics of it."""
    from llm_assets.evaluation.label_noise import TooFewExamplesError, estimate

    if config.problem != "single_label":
        return None, {"noise_skipped": f"confident learning is for texts with one label each, the problem is {config.problem}"}
    if not config.noise_folds:
        return None, {"noise_skipped": "noise_folds is 0"}
    try:
        noise = estimate(examples["text"].to_pylist(), examples["label"].to_pylist(), config.noise_folds, bench.seed)
    except TooFewExamplesError as error:
        return None, {"noise_skipped": str(error)}
    return noise, {
        "noise_rate": round(noise.rate, 4),
        "noise_by_pair": {pair: round(rate, 4) for pair, rate in noise.pairs.items()},
        "suspects": len(noise.suspects),
        "suspects_dropped": len(noise.suspects) if config.drop_suspects else 0,
    }


def _suspects(directory: Path, examples: pa.Table, noise: LabelNoise | None) -> None:
    """Write `suspects.parquet`, the most doubtful label first, the page of the first, and the plot of the margins."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    doubtful = examples.take(pa.array([] if noise is None else noise.suspects, pa.int64()))
    suggested = [] if noise is None else [noise.labels[place] for place in noise.suggested]
    # In thousandths: the last digits of a probability differ between processors.
    margin = [] if noise is None else noise.margin.round(3).tolist()
    given = doubtful["label"].to_pylist()
    columns = {"doc_id": doubtful["doc_id"], "given": given, "suggested": suggested, "margin": margin}
    schema = pa.schema([*((name, pa.string()) for name in ("doc_id", "given", "suggested")), ("margin", pa.float64())])
    pq.write_table(pa.table(columns, schema=schema), directory / "suspects.parquet")
    first = doubtful.slice(0, SAMPLES)
    pieces = [excerpt(text) for text in first["text"].to_pylist()]
    rows = list(zip(first["doc_id"].to_pylist(), given, suggested, margin, pieces, strict=False))[:SAMPLES]
    note = f"The {len(rows)} most doubtful of {len(doubtful)} labels; the margin is the probability of the suggested label less that of the given."
    pages.table(directory, "suspects", "Labels that are probably wrong", ("doc_id", "given", "suggested", "margin", "text"), rows, note)
    histogram(directory, "margins", margin, "Margins of the doubtful labels", "probability")


def _balanced(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    config = artifact.manifest.recipe["config"]
    floor, problem = config["minimum_share"], config.get("problem", "single_label")
    labels = artifact.table("train.parquet", ["label"])["label"].to_pylist()
    if problem == "regression":
        found = len(set(map(float, labels)))
        return Verdict(check="balanced", passed=found > 1, description=f"{found} different numbers; at least two expected", values={"numbers": found})
    counts = Counter(name for label in labels for name in parts(label, problem))
    shares = {name: counts[name] / max(len(labels), 1) for name in artifact.json("labels.json")}
    low = [label for label, share in shares.items() if share < floor]
    return Verdict(
        check="balanced",
        passed=len(shares) > 1 and not low,
        description=", ".join(f"{label} {share:.1%}" for label, share in shares.items()) + f"; at least two labels with {floor:.0%} each expected",
        values={"shares": shares},
    )


def _undisputed(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    examples = artifact.table("train.parquet", ["doc_id", "text", "label"])
    disputed = sorted(_disputed(examples["text"].to_pylist(), examples["label"].to_pylist()))
    return Verdict(
        check="undisputed",
        passed=not disputed,
        description=f"{len(disputed)} of {len(examples)} examples stand with another label too",
        values={"doc_ids": [examples["doc_id"][index].as_py() for index in disputed[:10]]},
    )


def _from_clean(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import tempfile

    import pyarrow as pa
    import pyarrow.compute as pc

    examples = artifact.table("train.parquet", ["doc_id", "text", "provenance"])
    served = pc.is_in(examples["provenance"], pa.array(PROVENANCES))
    left = set(examples.filter(pc.invert(served))["doc_id"].to_pylist())
    for batch in inputs["clean_corpus"].batches("documents.parquet", ["doc_id"]):
        left.difference_update(batch["doc_id"].to_pylist())
    foreign, feedback = sorted(left), examples.filter(served)
    if len(feedback):
        with tempfile.TemporaryDirectory() as scratch:
            wrong = evaluated(feedback["text"].to_pylist(), inputs["clean_corpus"], inputs["evaluation_sets"], Path(scratch))
        foreign += feedback.filter(pa.array(wrong))["doc_id"].to_pylist()
    return Verdict(
        check="from_clean_corpus",
        passed=not foreign,
        description=f"{len(foreign)} examples are not in the clean corpus, which is free of evaluation text, nor feedback that is",
        values={"doc_ids": foreign[:10]},
    )


def _consistent(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    rate, ceiling = artifact.metrics.get("noise_rate"), artifact.manifest.recipe["config"]["maximum_noise"]
    reason = artifact.metrics.get("noise_skipped", "no estimate stands in the metrics")
    found = f"{rate:.1%} of the labels are estimated to be wrong, at most {ceiling:.0%} expected" if rate is not None else f"not estimated: {reason}"
    return Verdict(
        check="labels_consistent", passed=rate is None or rate <= ceiling, blocking=False, description=found,
        values=artifact.metrics.get("noise_by_pair", {}),
    )  # fmt: skip


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_examples

    return judge_examples(artifact)


LINK = Link(
    name="labelled_examples",
    version=2,
    make=labelled_examples,
    config=LabelledExamplesConfig,
    inputs=("clean_corpus", "evaluation_sets"),
    stage="corpus",
    role="technical_expert",
    kinds=("python", "parquet"),
    checks=(
        Check("balanced", "At least two labels, none with a vanishing share", _balanced),
        Check("undisputed", "No text stands with two labels", _undisputed),
        Check("from_clean_corpus", "Every example is a document of the clean corpus, or feedback free of evaluation text", _from_clean),
        Check("labels_consistent", "Few labels are estimated to be wrong (confident learning)", _consistent, blocking=False),
        Check("expectations", "Great Expectations: doc_ids unique, labels among those declared, texts not empty", _expectations),
    ),
    observe=observe,
    libraries=("pyarrow", "scikit-learn"),
)
