"""The link labelled_examples: what the classifier is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.corpus.documents import domains, text_key
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict


class LabelledExamplesConfig(Section):
    """Which labelled documents are trained on."""

    labels: list[str] | None = Field(None, min_length=2, description="only documents with these; none: every label found")
    minimum_share: float = Field(0.1, ge=0, le=0.5, description="the check fails when a label has a smaller share of the examples")


def labelled_examples(bench: Bench, config: LabelledExamplesConfig, clean_corpus: Artifact) -> Made:
    """Collects the labelled documents of the clean corpus as training examples.

    The clean corpus holds neither duplicates nor anything of the evaluation sets, so the examples do not either. A text
    that stands with two labels is left out and counted: nobody could learn which is right.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    documents = clean_corpus.table("documents.parquet", ["doc_id", "text", "label", "metadata"])
    documents = documents.filter(pc.is_valid(documents["label"]))
    if config.labels:
        documents = documents.filter(pc.is_in(documents["label"], pa.array(config.labels, pa.string())))
    disputed = _disputed(documents["text"].to_pylist(), documents["label"].to_pylist())
    examples = documents.filter(pa.array([index not in disputed for index in range(len(documents))], pa.bool_()))
    domain = domains(examples["metadata"].to_pylist())
    examples = examples.drop_columns(["metadata"]).append_column("domain", pa.array(domain, pa.string()))
    pq.write_table(examples, bench.directory / "train.parquet")
    counts = dict(sorted(Counter(examples["label"].to_pylist()).items()))
    write_json(bench.directory / "labels.json", list(counts))
    bars(bench.directory, "labels", counts, "Examples of each label", "documents")
    histogram(bench.directory, "lengths", pc.utf8_length(examples["text"]).to_pylist(), "Length of the examples", "characters")
    return Made(
        metrics={
            "examples": len(examples),
            "labels": counts,
            "contradictory_labels": len(disputed),
            "domains": dict(sorted(Counter(str(name) for name in domain).items())),
        }
    )


def _disputed(texts: list[str], labels: list[str]) -> set[int]:
    """The indices of texts that stand, punctuation aside, with more than one label."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        places[text_key(text)].append(index)
    return {index for group in places.values() if len({labels[index] for index in group}) > 1 for index in group}


def _balanced(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    floor = artifact.manifest.recipe["config"]["minimum_share"]
    counts = Counter(artifact.table("train.parquet", ["label"])["label"].to_pylist())
    shares = {label: counts[label] / max(counts.total(), 1) for label in artifact.json("labels.json")}
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
    clean = set(inputs["clean_corpus"].table("documents.parquet", ["doc_id"])["doc_id"].to_pylist())
    foreign = [doc_id for doc_id in artifact.table("train.parquet", ["doc_id"])["doc_id"].to_pylist() if doc_id not in clean]
    return Verdict(
        check="from_clean_corpus",
        passed=not foreign,
        description=f"{len(foreign)} examples are not in the clean corpus, which alone is free of evaluation text",
        values={"doc_ids": foreign[:10]},
    )


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_examples

    return judge_examples(artifact)


LINK = Link(
    name="labelled_examples",
    version=1,
    make=labelled_examples,
    config=LabelledExamplesConfig,
    inputs=("clean_corpus",),
    stage="corpus",
    role="annotation",
    kinds=("python", "parquet"),
    checks=(
        Check("balanced", "At least two labels, none with a vanishing share", _balanced),
        Check("undisputed", "No text stands with two labels", _undisputed),
        Check("from_clean_corpus", "Every example is a document of the clean corpus", _from_clean),
        Check("expectations", "Great Expectations: doc_ids unique, labels among those declared, texts not empty", _expectations),
    ),
    libraries=("pyarrow",),
)
