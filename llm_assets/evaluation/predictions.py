"""The table of predictions that every evaluation reads: one row a model and document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.evaluation.quality import accuracy, macro_f1
from llm_assets.store.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Examples:
    """The evaluation documents, columns of equal length."""

    doc_ids: list[str]
    texts: list[str]
    labels: list[str]
    splits: list[str]

    @classmethod
    def read(cls, evaluation_sets: Artifact, known: Sequence[str] | None = None) -> Examples:
        """The documents of the evaluation sets: all, or those whose label is ``known`` to the classifier."""
        import pyarrow.compute

        table = evaluation_sets.table("evaluation.parquet", ["doc_id", "text", "label", "split"])
        if known is not None:
            table = table.filter(pyarrow.compute.is_in(table["label"], pyarrow.array(known, pyarrow.string())))
        return cls(*(table[name].to_pylist() for name in ("doc_id", "text", "label", "split")))

    def of(self, split: str) -> Examples:
        """The documents of one split."""
        kept = [index for index, name in enumerate(self.splits) if name == split]
        return Examples(*([column[index] for index in kept] for column in (self.doc_ids, self.texts, self.labels, self.splits)))

    def write(self, path: Path) -> Path:
        """Write them as Parquet: doc_id, text, label, split; returns ``path``."""
        import pyarrow
        import pyarrow.parquet

        columns = {"doc_id": self.doc_ids, "text": self.texts, "label": self.labels, "split": self.splits}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path


def rows(model: str, examples: Examples, probabilities: Sequence[Sequence[float]], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a document; ``probabilities`` [documents, labels] in the order of ``names``, the highest is the prediction."""
    return [
        {
            "model": model,
            "split": split,
            "doc_id": doc_id,
            "label": label,
            "predicted": names[max(range(len(names)), key=row.__getitem__)],
            "probabilities": [float(value) for value in row],
        }
        for doc_id, label, split, row in zip(examples.doc_ids, examples.labels, examples.splits, probabilities, strict=True)
    ]


def write(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet: model, split, doc_id, label, predicted, probabilities (list of float)."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in ("model", "split", "doc_id", "label", "predicted")]
        + [("probabilities", pyarrow.list_(pyarrow.float32()))]
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(entries), schema), path)


def read(artifact: Artifact, model: str, split: str) -> list[dict[str, Any]]:
    """The rows of one model and split, as ``rows`` gave them."""
    table: pyarrow.Table = artifact.table("predictions.parquet")
    return [row for row in table.to_pylist() if row["model"] == model and row["split"] == split]


def scores(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy, macro F1 and the number of documents by split, of one model's rows."""
    found: dict[str, dict[str, float]] = {}
    listed = list(entries)
    for split in SPLITS:
        chosen = [row for row in listed if row["split"] == split]
        if chosen:
            labels, predicted = [row["label"] for row in chosen], [row["predicted"] for row in chosen]
            found[split] = {"accuracy": accuracy(labels, predicted), "macro_f1": macro_f1(labels, predicted), "documents": len(chosen)}
    return found


def predicted(entries: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Prediction by document."""
    return {row["doc_id"]: row["predicted"] for row in entries}


def correct(entries: Iterable[dict[str, Any]]) -> dict[str, bool]:
    """By document, whether the prediction was right."""
    return {row["doc_id"]: row["predicted"] == row["label"] for row in entries}
