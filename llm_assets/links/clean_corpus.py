"""The link clean_corpus: one copy of every text, and none that the evaluation sets hold."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus.codepoints import hash_texts, letters
from llm_assets.corpus.contamination import EvaluationNgrams, Overlap
from llm_assets.corpus.documents import EVIDENCE_LENGTH, SAMPLES, document_schema, reject_schema, rejects, table_writer
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters
from llm_assets.corpus.pii import excerpt
from llm_assets.links import pages
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

RULES = ("evaluation", "evaluation_overlap", "duplicate", "near_duplicate")


class CleanCorpusConfig(Section):
    """When two texts are taken for one."""

    near_duplicates: NearDuplicates = Field(NearDuplicates(), description="when two texts count as one")
    overlap: Overlap = Field(Overlap(), description="when a document counts as holding an evaluation document")
    minimum_kept: int = Field(100, ge=1, description="the check fails below so many documents")


def clean_corpus(bench: Bench, config: CleanCorpusConfig, screened_corpus: Artifact, evaluation_sets: Artifact) -> Made:
    """Keeps one copy of every text and removes what the evaluation sets hold, pretraining text included.

    Texts equal but for punctuation, and near-duplicates (MinHash over character trigrams, connected components), form a
    cluster; a labelled document is kept before an unlabelled one, an earlier before a later. A cluster that touches an
    evaluation document goes whole, and so does a document inside which an evaluation document stands (n-gram overlap).
    Where the copies of a text carry different labels, the kept one loses its label. `rejects.parquet` gives for each
    dropped document the rule and, as evidence, the doc_id of what it repeats.
    """
    import numpy as np
    import pyarrow as pa

    total = screened_corpus.rows("documents.parquet")
    corpus = _survey(bench, config, screened_corpus, evaluation_sets)
    fate, other, contradictory = _decide(corpus)
    samples = _samples(corpus, fate, other)
    shown = {index for rows in samples.values() for row in rows for index in row if index < total}
    texts: dict[int, str] = {}
    sources: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    lengths: list[NDArray[np.uint32]] = []
    with (
        table_writer(bench.directory / "documents.parquet", document_schema()) as keep,
        table_writer(bench.directory / "rejects.parquet", reject_schema()) as reject,
    ):
        for start, table in _tables(screened_corpus):
            place = slice(start, start + len(table))
            ends, disputed = fate[place], contradictory[place]
            without = [None if lost else label for label, lost in zip(table["label"].to_pylist(), disputed.tolist(), strict=True)]
            table = table.set_column(table.schema.get_field_index("label"), "label", pa.array(without, pa.string()))
            kept, dropped = table.filter(pa.array(ends < 0)), table.filter(pa.array(ends >= 0))
            keep(kept)
            reject(rejects(dropped, [RULES[rule] for rule in ends[ends >= 0]], [corpus.names[one].decode() for one in other[place][ends >= 0]]))
            texts |= {index: excerpt(table["text"][index - start].as_py()) for index in shown if start <= index < start + len(table)}
            sources.update(kept["source"].to_pylist())
            labels.update(label for label in kept["label"].to_pylist() if label)
            lengths.append(np.fromiter(map(len, kept["text"].to_pylist()), np.uint32, len(kept)))
            bench.progress(start + len(table), total, "documents written")
    characters = np.concatenate([np.empty(0, np.uint32), *lengths])
    counts = {rule: int((fate == number).sum()) for number, rule in enumerate(RULES)}
    bars(bench.directory, "dropped", counts, "Documents dropped by each rule", "documents")
    histogram(bench.directory, "lengths", characters, "Length of the kept documents", "characters")
    sizes = np.minimum(np.unique(corpus.cluster[:total], return_counts=True)[1], 10)
    bars(bench.directory, "clusters", {f"{n}{'+' * (n == 10)}": int((sizes == n).sum()) for n in range(1, 11)}, "Copies of a text", "clusters")
    _page(bench.directory, corpus, samples, texts)
    return Made(
        metrics={
            "read": total,
            "kept": len(characters),
            "characters": int(characters.sum()),
            "dropped": counts,
            "contradictory_labels": int(contradictory.sum()),
            "sources": dict(sorted(sources.items())),
            "labels": dict(sorted(labels.items())),
        }
    )


@dataclass
class _Survey:
    """What is known of every document after one look at each: 54 bytes a document. Evaluation documents stand at the end."""

    names: NDArray[np.bytes_]  # doc_ids, shape [documents + evaluation documents]
    cluster: NDArray[np.int64]
    key: NDArray[np.uint64]  # hash of the letters
    label: NDArray[np.int16]  # number of the label, shape [documents]; -1: none
    evaluation: NDArray[np.int64]  # the evaluation document that one of its cluster or its own text is drawn from, or -1
    overlap: NDArray[np.int64]  # the evaluation document that stands inside it, or -1


def _survey(bench: Bench, config: CleanCorpusConfig, screened: Artifact, evaluation_sets: Artifact) -> _Survey:
    import numpy as np

    total = screened.rows("documents.parquet")
    evaluation = evaluation_sets.table("evaluation.parquet", ["doc_id", "text", "cluster"])
    drawn_texts: list[str] = evaluation["text"].to_pylist()
    number = {cluster: index for index, cluster in enumerate(evaluation["cluster"].to_pylist())}
    members = evaluation_sets.table("members.parquet")
    drawn = {one: number[cluster] for one, cluster in zip(members["doc_id"].to_pylist(), members["cluster"].to_pylist(), strict=True)}
    held = EvaluationNgrams(drawn_texts, config.overlap)
    names, labels, evaluated, overlaps, known = [], [], [], [], {None: -1}

    def texts() -> Iterator[list[str]]:
        for _, table in _tables(screened):
            doc_ids = table["doc_id"].to_pylist()
            names.append(np.array(doc_ids, "S20"))
            labels.append(np.array([known.setdefault(label, len(known) - 1) for label in table["label"].to_pylist()], np.int16))
            evaluated.append(np.array([drawn.get(one, -1) for one in doc_ids], np.int64))
            batch = table["text"].to_pylist()
            overlaps.append(held.held(batch))
            yield batch
        yield drawn_texts

    cluster, key = clusters(texts(), config.near_duplicates, bench.scratch, total, bench.progress)
    names.append(np.array(evaluation["doc_id"].to_pylist(), "S20"))
    by_cluster, first = np.unique(cluster[total:], return_index=True)
    place = np.minimum(np.searchsorted(by_cluster, cluster[:total]), max(len(by_cluster) - 1, 0))
    touched = np.where(by_cluster[place] == cluster[:total], first[place], -1) if len(by_cluster) else np.full(total, -1)
    direct = np.concatenate([np.empty(0, np.int64), *evaluated])
    return _Survey(
        names=np.concatenate(names),
        cluster=cluster,
        key=key,
        label=np.concatenate([np.empty(0, np.int16), *labels]),
        evaluation=np.where(direct >= 0, direct, touched),
        overlap=np.concatenate([np.empty(0, np.int64), *overlaps]),
    )


def _decide(corpus: _Survey) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.bool_]]:
    """For each document the number of the rule that drops it or -1, the place of what it repeats, and whether it is kept without its label."""
    import numpy as np

    total = len(corpus.label)
    fate, other = np.full(total, -1, np.int8), np.zeros(total, np.int64)
    for rule, found in ((1, corpus.overlap), (0, corpus.evaluation)):
        fate[found >= 0], other[found >= 0] = rule, total + found[found >= 0]
    left = np.flatnonzero(fate < 0)
    order = left[np.lexsort((left, corpus.label[left] < 0, corpus.cluster[left]))]
    begins = np.concatenate([[True], corpus.cluster[order[1:]] != corpus.cluster[order[:-1]]]) if len(order) else np.empty(0, np.bool_)
    kept = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if len(order) else order
    repeats = order != kept
    fate[order[repeats]] = np.where(corpus.key[order[repeats]] == corpus.key[kept[repeats]], 2, 3)
    other[order[repeats]] = kept[repeats]
    contradictory = np.zeros(total, np.bool_)
    labelled = corpus.label[order] >= 0
    pairs = np.unique(np.stack([kept[labelled], corpus.label[order[labelled]].astype(np.int64)], axis=1), axis=0)
    places, labels = np.unique(pairs[:, 0], return_counts=True)
    contradictory[places[labels > 1]] = True
    return fate, other, contradictory


def _tables(artifact: Artifact) -> Iterator[tuple[int, pa.Table]]:
    """The documents in pieces, each with the place of its first."""
    import pyarrow as pa

    start = 0
    for batch in artifact.batches("documents.parquet"):
        yield start, pa.Table.from_batches([batch])
        start += len(batch)


def _samples(corpus: _Survey, fate: NDArray[np.int8], other: NDArray[np.int64]) -> dict[str, list[tuple[int, int]]]:
    """Of each rule the dropped documents with the smallest doc_ids, each with what it repeats."""
    import numpy as np

    chosen = {}
    for number, rule in enumerate(RULES):
        places = np.flatnonzero(fate == number)
        first = places[np.argsort(corpus.names[places], kind="stable")[:SAMPLES]]
        chosen[rule] = [(int(place), int(other[place])) for place in first]
    return chosen


def _page(directory: Path, corpus: _Survey, samples: Mapping[str, list[tuple[int, int]]], texts: Mapping[int, str]) -> None:
    """The pairs side by side; the text of evaluation documents is not shown, so that nobody tunes rules to it."""
    rows = [
        (rule, corpus.names[dropped].decode(), texts[dropped], corpus.names[kept].decode(), texts.get(kept, "(evaluation document)"))
        for rule, pairs in samples.items()
        for dropped, kept in pairs
    ]
    columns = ("rule", "dropped", "its text", "repeats", "text of that")
    pages.table(
        directory, "duplicates", "What repeats what", columns, rows, f"Up to {SAMPLES} pairs a rule; texts are cut to {EVIDENCE_LENGTH} characters."
    )


def _decontaminated(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    evaluation = inputs["evaluation_sets"].table("evaluation.parquet", ["text"])["text"].to_pylist()
    members = set(inputs["evaluation_sets"].table("members.parquet", ["doc_id"])["doc_id"].to_pylist())
    config = CleanCorpusConfig.model_validate(artifact.manifest.recipe["config"])
    ngrams = EvaluationNgrams(evaluation, config.overlap)
    names, leaked = [np.empty(0, "S20")], [np.empty(0, np.bool_)]

    def texts() -> Iterator[list[str]]:
        for batch in artifact.batches("documents.parquet", ["doc_id", "text"]):
            doc_ids, found = batch["doc_id"].to_pylist(), batch["text"].to_pylist()
            names.append(np.array(doc_ids, "S20"))
            leaked.append((ngrams.held(found) >= 0) | np.fromiter((one in members for one in doc_ids), np.bool_, len(doc_ids)))
            yield found
        yield evaluation

    with tempfile.TemporaryDirectory() as scratch:
        cluster, _ = clusters(texts(), config.near_duplicates, Path(scratch))
    total = len(cluster) - len(evaluation)
    wrong = np.concatenate(leaked) | np.isin(cluster[:total], cluster[total:])
    return Verdict(
        check="decontaminated",
        passed=not wrong.any(),
        description=f"{int(wrong.sum())} of {total} documents equal, nearly equal or hold one of the {len(evaluation)} evaluation documents",
        values={"doc_ids": sorted(one.decode() for one in np.concatenate(names)[wrong][:10])},
    )


def _deduplicated(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    keys, names = [np.empty(0, np.uint64)], [np.empty(0, "S20")]
    for batch in artifact.batches("documents.parquet", ["doc_id", "text"]):
        keys.append(hash_texts(letters(batch["text"].to_pylist())))
        names.append(np.array(batch["doc_id"].to_pylist(), "S20"))
    every = np.concatenate(keys)
    again = np.ones(len(every), np.bool_)
    again[np.unique(every, return_index=True)[1]] = False
    return Verdict(
        check="deduplicated",
        passed=not again.any(),
        description=f"{int(again.sum())} of {len(every)} documents repeat another but for punctuation",
        values={"doc_ids": [one.decode() for one in np.concatenate(names)[again][:10]]},
    )


def _enough_kept(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    kept, floor = artifact.rows("documents.parquet"), artifact.manifest.recipe["config"]["minimum_kept"]
    return Verdict(check="enough_kept", passed=kept >= floor, description=f"{kept} documents kept, at least {floor} expected", values={"kept": kept})


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_documents

    return judge_documents(artifact, "clean_corpus")


LINK = Link(
    name="clean_corpus",
    version=2,
    make=clean_corpus,
    config=CleanCorpusConfig,
    inputs=("screened_corpus", "evaluation_sets"),
    stage="corpus",
    role="data_engineer",
    kinds=("python", "parquet"),
    checks=(
        Check("decontaminated", "No document equals, nearly equals or holds one of the evaluation sets", _decontaminated),
        Check("deduplicated", "No text stands twice, punctuation aside", _deduplicated),
        Check("enough_kept", "Enough documents are left to learn from", _enough_kept),
        Check("expectations", "Great Expectations: doc_ids unique, columns filled, lengths within bounds", _expectations),
    ),
    libraries=("numpy", "pyarrow"),
)
