"""The link evaluation_sets: validation and test sets that stay what they are as long as their sources do."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, model_validator

from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.documents import domains, text_key
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem, canonical, parts

if TYPE_CHECKING:
    import pyarrow as pa

READ = ("doc_id", "text", "label", "source", "metadata")
BATCH = 10_000  # documents at once
COLUMNS = ("doc_id", "text", "label", "domain", "split", "cluster")


class EvaluationSetsConfig(Section):
    """How the sets are drawn."""

    version: int = Field(1, ge=1, description="raised by hand to draw new sets; figures of different versions do not compare")
    test_share: float = Field(0.10, gt=0, lt=1, description="of the near-duplicate clusters")
    validation_share: float = Field(0.05, gt=0, lt=1, description="of the near-duplicate clusters")
    problem: Problem = Field("single_label", description="what a label is, as in labelled_examples")
    sources: list[str] | None = Field(None, description="sources they are drawn from; documents of any other then leave the sets as they are")
    near_duplicates: NearDuplicates = Field(NearDuplicates(), description="when two texts count as one")
    unlabelled: bool = Field(
        False, description="draw from documents without labels, such as conversations; the name of its source then stands where a label would"
    )

    def recipe(self) -> dict[str, Any]:
        """With labels what it was before there were sets without."""
        values = super().recipe()
        return values if self.unlabelled else {name: value for name, value in values.items() if name != "unlabelled"}

    @model_validator(mode="after")
    def _sources_named(self) -> EvaluationSetsConfig:
        if self.unlabelled and not self.sources:
            raise ValueError("unlabelled: true draws from every document of `sources`: name them, or text for pretraining would leave it")
        return self

    @model_validator(mode="after")
    def _leaves_training_data(self) -> EvaluationSetsConfig:
        if self.test_share + self.validation_share >= 0.9:
            raise ValueError("test_share + validation_share leave less than a tenth for training; lower them")
        return self


class Drawn(NamedTuple):
    """The documents of the sets, each for its cluster, and all members of those clusters."""

    rows: list[dict[str, str]]  # ``COLUMNS``, by doc_id
    members: list[dict[str, str]]  # doc_id and cluster
    clusters: int  # of all documents
    contradictory: int  # of these, left out


def evaluation_sets(bench: Bench, config: EvaluationSetsConfig, raw_corpus: Artifact) -> Made:
    """Draws the validation and test sets, which stay the same while the sources they are drawn from do and until their version is raised.

    Labelled texts that are equal or nearly equal form a cluster (MinHash), so that no variant of a test document is left
    for training; clusters whose members disagree on the label are left out. The hash of the version and of the cluster's
    smallest text key (text without punctuation, in code point order) decides where a cluster goes, and the document with
    that key stands for it: no shuffling, and a new document moves no cluster that it is not nearly equal to. One that is
    moves it in three cases: its key is smaller, so the hash is drawn anew; it joins two clusters into one; or its label
    contradicts theirs, and the cluster leaves the sets. Only documents of the named `sources` count: an inbox that is not
    among them moves nothing.
    Without labels (`unlabelled`) each document is of the class of its source.
    The sets come from the raw corpus, normalised and masked but not screened: a new cleaning rule must not move them.
    `members.parquet` lists all documents of the drawn clusters; clean_corpus removes every one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.concat_tables([_labelled(batch, config) for batch in raw_corpus.batches("documents.parquet", list(READ))])
    texts = [text for batch in raw.to_batches() for text in clean_texts(batch["text"].to_pylist()).texts]
    pieces = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    number, _ = clusters(pieces, config.near_duplicates, bench.scratch, len(texts), bench.progress)
    drawn = _draw(raw, texts, number.tolist(), config)
    for name, records, columns in (("evaluation", drawn.rows, COLUMNS), ("members", drawn.members, ("doc_id", "cluster"))):
        schema = pa.schema([(column, pa.string()) for column in columns])
        pq.write_table(pa.Table.from_pylist(records, schema), bench.directory / f"{name}.parquet")
    write_json(bench.directory / "labels.json", sorted({name for row in drawn.rows for name in parts(row["label"], config.problem)}))
    sizes = Counter(row["split"] for row in drawn.rows)
    balance = Counter(f"{row['split']} {name}" for row in drawn.rows for name in parts(row["label"], config.problem))
    bars(bench.directory, "labels", dict(sorted(balance.items())), "Documents by set and label", "documents")
    histogram(bench.directory, "lengths", [len(row["text"]) for row in drawn.rows], "Length of the evaluation documents", "characters")
    return Made(
        metrics={
            "version": config.version,
            "test": sizes["test"],
            "validation": sizes["validation"],
            "clusters": drawn.clusters,
            "contradictory_clusters": drawn.contradictory,
            "labels": dict(sorted(balance.items())),
        }
    )


def _labelled(batch: pa.RecordBatch, config: EvaluationSetsConfig) -> pa.Table:
    """The rows that carry a label and come from one of the sources asked for; all else is read past."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_batches([batch])
    if config.unlabelled:
        table = table.set_column(table.schema.get_field_index("label"), "label", table["source"])
    table = table.filter(pc.is_valid(table["label"]))
    return table if config.sources is None else table.filter(pc.is_in(table["source"], pa.array(config.sources, pa.string())))


def _draw(raw: pa.Table, texts: Sequence[str], number: Sequence[int], config: EvaluationSetsConfig) -> Drawn:
    """The sets of the documents, given with their normalised texts and the numbers of their clusters; a text without a key is in no cluster."""
    keys = [text_key(text) for text in texts]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, cluster in enumerate(number):
        if keys[index]:
            groups[cluster].append(index)
    doc_ids, labels = raw["doc_id"].to_pylist(), [canonical(label, config.problem) for label in raw["label"].to_pylist()]
    domain = domains(raw["metadata"].to_pylist())
    agreed = [group for group in groups.values() if len({labels[index] for index in group}) == 1]
    rows: list[dict[str, str]] = []
    members: set[tuple[str, str]] = set()
    for group in agreed:
        chosen = min(group, key=lambda index: (keys[index], doc_ids[index], index))
        name = hashlib.sha256(keys[chosen].encode()).hexdigest()[:20]
        if split := assign(name, config):
            row = {"doc_id": doc_ids[chosen], "text": texts[chosen], "label": labels[chosen], "domain": domain[chosen]}
            rows.append({**row, "split": split, "cluster": name})
            members |= {(doc_ids[index], name) for index in group}
    rows.sort(key=lambda row: row["doc_id"])
    return Drawn(rows, [{"doc_id": doc_id, "cluster": name} for doc_id, name in sorted(members)], len(groups), len(groups) - len(agreed))


def assign(cluster: str, config: EvaluationSetsConfig) -> str | None:
    """The set a cluster belongs to by its hash, or None where it is left for training."""
    draw = int.from_bytes(hashlib.sha256(f"{config.version}:{cluster}".encode()).digest()[:8]) / 2**64
    if draw < config.test_share:
        return "test"
    return "validation" if draw < config.test_share + config.validation_share else None


def _sets_disjoint(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    table = artifact.table("evaluation.parquet", ["doc_id", "text", "cluster"])
    keys = [text_key(text) for text in table["text"].to_pylist()]
    columns = {"doc_id": table["doc_id"].to_pylist(), "cluster": table["cluster"].to_pylist(), "text": keys}
    repeated = {name: len(values) - len(set(values)) for name, values in columns.items()}
    return Verdict(
        check="one_document_a_cluster",
        passed=not any(repeated.values()),
        description=f"{len(table)} documents; repeated: " + ", ".join(f"{count} by {name}" for name, count in repeated.items()),
        values=repeated,
    )


def _sets_usable(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    table = artifact.table("evaluation.parquet", ["split", "label"])
    config = artifact.manifest.recipe["config"]
    labels, problem = artifact.json("labels.json"), config.get("problem", "single_label")
    pairs = zip(table["split"].to_pylist(), table["label"].to_pylist(), strict=True)
    counts = Counter((split, name) for split, label in pairs for name in parts(label, problem))
    missing = [f"{split} {label}" for split in ("validation", "test") for label in labels if not counts[split, label]]
    least = len(config["sources"]) if config.get("unlabelled") else 1 if problem == "regression" else 2  # whose one label is any number
    enough = len(labels) >= least
    return Verdict(
        check="every_label_in_every_set",
        passed=enough and not missing,
        description=f"{len(labels)} labels"
        + (f"; no document for {', '.join(missing)}" if missing else ", each in both sets")
        + ("" if enough else f"; at least {least} are needed: a classifier's two, or each of the sources named where documents have no labels"),
        values={f"{split} {label}": count for (split, label), count in sorted(counts.items())},
    )


LINK = Link(
    name="evaluation_sets",
    version=4,
    make=evaluation_sets,
    config=EvaluationSetsConfig,
    inputs=("raw_corpus",),
    stage="corpus",
    role="technical_expert",
    kinds=("python", "parquet"),
    checks=(
        Check("one_document_a_cluster", "No document, text or cluster stands twice in the sets", _sets_disjoint),
        Check("every_label_in_every_set", "Both sets hold documents of every label, and there are at least two labels", _sets_usable),
    ),
    libraries=("numpy", "pyarrow"),
)
