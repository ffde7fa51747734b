"""The table of predictions that every evaluation reads: one row a model and document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.evaluation.quality import SCORES, figures
from llm_assets.serving.engine import decided
from llm_assets.store.artifact import Artifact
from llm_assets.training.heads import Problem, canonical, parts

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
    def read(cls, evaluation_sets: Artifact, known: Sequence[str] | None = None, problem: Problem = "single_label") -> Examples:
        """The documents of the evaluation sets: all, or those whose labels are all ``known`` to the classifier."""
        import pyarrow

        table = evaluation_sets.table("evaluation.parquet", ["doc_id", "text", "label", "split"])
        if known is not None:
            is_known = [set(parts(label, problem)) <= set(known) for label in table["label"].to_pylist()]
            table = table.filter(pyarrow.array(is_known, pyarrow.bool_()))
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


def rows(
    model: str, examples: Examples, probabilities: Sequence[Sequence[float]], names: Sequence[str], problem: Problem = "single_label"
) -> list[dict[str, Any]]:
    """One row a document; ``probabilities`` [documents, labels] in the order of ``names`` (a regression's are its numbers).

    The prediction is written like a label: the likeliest name, all names with a probability of one half or more, or the number.
    """
    return [
        {
            "model": model,
            "split": split,
            "doc_id": doc_id,
            "label": canonical(label, problem),
            "predicted": decided(problem, row, names),
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


def scores(entries: Iterable[dict[str, Any]], problem: Problem = "single_label") -> dict[str, dict[str, float]]:
    """``quality.figures`` and the number of documents by split, of one model's rows."""
    found: dict[str, dict[str, float]] = {}
    listed = list(entries)
    for split in SPLITS:
        chosen = [row for row in listed if row["split"] == split]
        if chosen:
            worth = figures([row["label"] for row in chosen], [row["predicted"] for row in chosen], problem)
            found[split] = {**worth, "documents": len(chosen)}
    return found


def score(entries: Iterable[dict[str, Any]], split: str, problem: Problem) -> float:
    """The one figure of a split that models are compared by: accuracy, micro F1 or R²."""
    return scores(entries, problem)[split][SCORES[problem]]


def predicted(entries: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Prediction by document."""
    return {row["doc_id"]: row["predicted"] for row in entries}


def merit(entries: Iterable[dict[str, Any]], problem: Problem = "single_label") -> dict[str, float]:
    """By document, 1 where the prediction was right, label by label, and 0 where not; of a number its squared error taken negative."""
    if problem == "regression":
        return {row["doc_id"]: -((float(row["predicted"]) - float(row["label"])) ** 2) for row in entries}
    return {row["doc_id"]: float(row["predicted"] == row["label"]) for row in entries}
