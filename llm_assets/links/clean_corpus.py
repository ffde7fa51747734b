"""The link clean_corpus: one copy of every text, and none that the evaluation sets hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.corpus.documents import rejects, text_key
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict

RULES = ("evaluation", "duplicate", "near_duplicate")


class CleanCorpusConfig(Section):
    """When two texts are taken for one."""

    near_duplicates: NearDuplicates = Field(NearDuplicates(), description="when two texts count as one")
    minimum_kept: int = Field(100, ge=1, description="the check fails below so many documents")


def clean_corpus(bench: Bench, config: CleanCorpusConfig, screened_corpus: Artifact, evaluation_sets: Artifact) -> Made:
    """Keeps one copy of every text and removes what the evaluation sets hold, pretraining text included.

    Texts equal but for punctuation, and near-duplicates (MinHash over character trigrams, connected components), form a
    cluster; a labelled document is kept before an unlabelled one, an earlier before a later. A cluster that touches an
    evaluation document goes whole. Where the copies of a text carry different labels, the kept one loses its label.
    `rejects.parquet` gives for each dropped document the rule and, as evidence, the doc_id of what it repeats.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = screened_corpus.table("documents.parquet")
    evaluation = evaluation_sets.table("evaluation.parquet", ["doc_id", "text", "cluster"])
    held = dict(zip(evaluation["cluster"].to_pylist(), evaluation["doc_id"].to_pylist(), strict=True))
    members = evaluation_sets.table("members.parquet")
    drawn = {one: held[cluster] for one, cluster in zip(members["doc_id"].to_pylist(), members["cluster"].to_pylist(), strict=True)}
    keys = [text_key(text) for text in (*documents["text"].to_pylist(), *evaluation["text"].to_pylist())]
    number = clusters(keys, config.near_duplicates, bench.progress).tolist()
    touched = dict(zip(number[len(documents) :], evaluation["doc_id"].to_pylist(), strict=True))

    doc_ids, labels = documents["doc_id"].to_pylist(), documents["label"].to_pylist()
    groups: dict[int, list[int]] = defaultdict(list)
    fate: list[tuple[str, str] | None] = [None] * len(documents)  # rule and doc_id it repeats; none: kept
    for index, doc_id in enumerate(doc_ids):
        repeats = drawn.get(doc_id) or touched.get(number[index])
        if repeats:
            fate[index] = "evaluation", repeats
        else:
            groups[number[index]].append(index)
    contradictory = 0
    for group in groups.values():
        kept = min(group, key=lambda index: (labels[index] is None, index))
        if len({labels[index] for index in group} - {None}) > 1:
            contradictory += 1
            labels[kept] = None
        for index in group:
            if index != kept:
                fate[index] = "duplicate" if keys[index] == keys[kept] else "near_duplicate", doc_ids[kept]

    documents = documents.set_column(documents.schema.get_field_index("label"), "label", pa.array(labels, pa.string()))
    kept_documents = documents.filter(pa.array([end is None for end in fate], pa.bool_()))
    dropped = documents.filter(pa.array([end is not None for end in fate], pa.bool_()))
    reasons = [end for end in fate if end is not None]
    pq.write_table(kept_documents, bench.directory / "documents.parquet")
    pq.write_table(rejects(dropped, [rule for rule, _ in reasons], [other for _, other in reasons]), bench.directory / "rejects.parquet")
    counts = Counter(rule for rule, _ in reasons)
    lengths = [len(text) for text in kept_documents["text"].to_pylist()]
    bars(bench.directory, "dropped", {rule: counts[rule] for rule in RULES}, "Documents dropped by each rule", "documents")
    histogram(bench.directory, "lengths", lengths, "Length of the kept documents", "characters")
    return Made(
        metrics={
            "read": len(documents),
            "kept": len(kept_documents),
            "characters": sum(lengths),
            "dropped": {rule: counts[rule] for rule in RULES},
            "contradictory_labels": contradictory,
            "sources": dict(sorted(Counter(kept_documents["source"].to_pylist()).items())),
            "labels": dict(sorted(Counter(label for label in kept_documents["label"].to_pylist() if label).items())),
        }
    )


def _decontaminated(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    documents = artifact.table("documents.parquet", ["doc_id", "text"])
    evaluation = inputs["evaluation_sets"].table("evaluation.parquet", ["text"])
    members = set(inputs["evaluation_sets"].table("members.parquet", ["doc_id"])["doc_id"].to_pylist())
    keys = [text_key(text) for text in (*documents["text"].to_pylist(), *evaluation["text"].to_pylist())]
    config = NearDuplicates.model_validate(artifact.manifest.recipe["config"]["near_duplicates"])
    number = clusters(keys, config).tolist()
    held = set(number[len(documents) :])
    doc_ids = documents["doc_id"].to_pylist()
    leaked = [doc_id for index, doc_id in enumerate(doc_ids) if doc_id in members or number[index] in held]
    return Verdict(
        check="decontaminated",
        passed=not leaked,
        description=f"{len(leaked)} of {len(documents)} documents equal or nearly equal one of the {len(evaluation)} evaluation documents",
        values={"doc_ids": leaked[:10]},
    )


def _deduplicated(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    documents = artifact.table("documents.parquet", ["doc_id", "text"])
    seen: set[str] = set()
    repeated = []
    for doc_id, text in zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True):
        key = text_key(text)
        if key in seen:
            repeated.append(doc_id)
        seen.add(key)
    return Verdict(
        check="deduplicated",
        passed=not repeated,
        description=f"{len(repeated)} of {len(documents)} documents repeat another but for punctuation",
        values={"doc_ids": repeated[:10]},
    )


def _enough_kept(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    kept, floor = len(artifact.table("documents.parquet", ["doc_id"])), artifact.manifest.recipe["config"]["minimum_kept"]
    return Verdict(check="enough_kept", passed=kept >= floor, description=f"{kept} documents kept, at least {floor} expected", values={"kept": kept})


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_documents

    return judge_documents(artifact, "clean_corpus")


LINK = Link(
    name="clean_corpus",
    version=1,
    make=clean_corpus,
    config=CleanCorpusConfig,
    inputs=("screened_corpus", "evaluation_sets"),
    stage="corpus",
    role="data-engineering",
    kinds=("python", "parquet"),
    checks=(
        Check("decontaminated", "No document equals or nearly equals one of the evaluation sets", _decontaminated),
        Check("deduplicated", "No text stands twice, punctuation aside", _deduplicated),
        Check("enough_kept", "Enough documents are left to learn from", _enough_kept),
        Check("expectations", "Great Expectations: doc_ids unique, columns filled, lengths within bounds", _expectations),
    ),
    libraries=("pyarrow", "rensa"),
)
