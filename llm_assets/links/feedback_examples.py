"""Examples that came out of service: which of them may be learned from beside the corpus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus.batches import observe_batches, read_batches
from llm_assets.corpus.contamination import EvaluationNgrams, Overlap
from llm_assets.corpus.documents import text_key
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters
from llm_assets.corpus.places import local
from llm_assets.store.artifact import Artifact
from llm_assets.store.strict import Strict
from llm_assets.training.heads import LabelError, Problem, canonical, parts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

UNKNOWN = "unknown_label"
REASONS = ("in_the_corpus", "contradictory", "repeated", "evaluation", "over_share")


class Feedback(Strict):
    """Examples from service, beside those of the corpus: all old ones stay, so that nothing is forgotten for the new."""

    folder: str = Field("", description="folder of batches below the data root, such as feedback/reviews; empty: none are read")
    share: float = Field(0.5, gt=0, le=1, description="of all examples that may come from service at most; the newest are kept")


def observe_feedback(feedback: Feedback) -> dict[str, Any]:
    """Which batches are learned from: name to SHA-256. A folder that does not exist yet holds none."""
    if not feedback.folder:
        return {}
    place = local(feedback.folder)
    return {"feedback": observe_batches(place) if place else {}}


def feedback_examples(
    feedback: Feedback,
    examples: pa.Table,
    labels: Sequence[str] | None,
    problem: Problem,
    clean_corpus: Artifact,
    evaluation_sets: Artifact,
    scratch: Path,
) -> tuple[pa.Table, dict[str, int]]:
    """The rows of the batches that may join ``examples``, in their schema, and how many did not, by reason.

    Out go labels that are not declared (or, where none are, that the corpus does not know), texts that the corpus has examples
    of (no vote relabels those), texts with two labels, copies, and whatever equals, nearly equals or holds an evaluation document, by
    the clean corpus's own measures. What is left is cut to the share, oldest first.
    """
    known = set(labels) if labels is not None else {name for label in examples["label"].to_pylist() for name in parts(label, problem)}
    taken = {text_key(text) for text in examples["text"].to_pylist()}
    rows = [{**row, "label": _canonical(row["label"], problem, known)} for row in batched(feedback)]
    kept, left_out = Joining(feedback, taken, len(examples), clean_corpus, evaluation_sets, scratch).sort_out(rows, UNKNOWN)
    return _table(kept, examples.schema), left_out


def batched(feedback: Feedback) -> list[dict[str, Any]]:
    """The rows of the batches that still count, oldest first; none where no folder is named."""
    place = local(feedback.folder) if feedback.folder else None
    return read_batches(place).to_pylist() if place else []


@dataclass(frozen=True)
class Joining:
    """What rows from service would join."""

    feedback: Feedback
    taken: Collection[str]  # ``text_key`` of those that the corpus has too
    learned: int  # examples of the corpus
    clean_corpus: Artifact
    evaluation_sets: Artifact
    scratch: Path

    def sort_out(self, rows: Sequence[dict[str, Any]], unlabelled: str, refuted: Collection[str] = ()) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The ``rows``, oldest first, each with its ``text`` and ``label``, that may join; and how many may not, by reason.

        ``unlabelled`` is the reason of a row whose label is None; ``refuted`` has the ``text_key`` of what other rows say the contrary of.
        """
        import numpy as np

        reasons = (unlabelled, *REASONS)
        keys = [text_key(row["text"]) for row in rows]
        fates = np.array([0 if row["label"] is None else 1 if key in self.taken else -1 for row, key in zip(rows, keys, strict=True)], np.int64)
        said: dict[str, set[str]] = defaultdict(set)
        newest: dict[str, int] = {}
        for index in np.flatnonzero(fates < 0).tolist():
            said[keys[index]].add(rows[index]["label"])
            newest[keys[index]] = index
        for index in np.flatnonzero(fates < 0).tolist():
            if len(said[keys[index]]) > 1 or keys[index] in refuted:
                fates[index] = 2
            elif newest[keys[index]] != index:
                fates[index] = 3
        left = np.flatnonzero(fates < 0)
        fates[left[evaluated([rows[index]["text"] for index in left.tolist()], self.clean_corpus, self.evaluation_sets, self.scratch)]] = 4
        left = np.flatnonzero(fates < 0)
        room = room_for(self.feedback, self.learned, len(left))
        fates[left[: max(len(left) - room, 0)]] = 5
        counts = Counter(reasons[fate] for fate in fates[fates >= 0].tolist())
        return [rows[index] for index in np.flatnonzero(fates < 0).tolist()], {reason: counts[reason] for reason in reasons}


def as_recipe(values: dict[str, Any], feedback: Feedback) -> dict[str, Any]:
    """A section's values as its recipe: where the batches stand does not count, only which they are and what share they may have."""
    rest = {name: value for name, value in values.items() if name != "feedback"}
    return {**rest, "feedback": {"share": feedback.share}} if feedback.folder else rest


def room_for(feedback: Feedback, learned: int, most: int) -> int:
    """How many of ``most`` rows fit beside ``learned`` examples of the corpus."""
    return most if feedback.share == 1 else int(learned * feedback.share / (1 - feedback.share))


def evaluated(texts: Sequence[str], clean_corpus: Artifact, evaluation_sets: Artifact, scratch: Path) -> NDArray[np.bool_]:
    """Which texts equal, nearly equal or hold an evaluation document, measured as the clean corpus measured it."""
    import numpy as np

    config = clean_corpus.manifest.recipe["config"]
    documents = evaluation_sets.table("evaluation.parquet", ["text"])["text"].to_pylist()
    if not texts or not documents:
        return np.zeros(len(texts), np.bool_)
    holding = EvaluationNgrams(documents, Overlap.model_validate(config["overlap"])).held(texts) >= 0
    cluster, _ = clusters([list(texts), documents], NearDuplicates.model_validate(config["near_duplicates"]), scratch)
    found: NDArray[np.bool_] = holding | np.isin(cluster[: len(texts)], cluster[len(texts) :])
    return found


def _canonical(label: str, problem: Problem, known: set[str]) -> str | None:
    try:
        written = canonical(label, problem)
        return written if set(parts(written, problem)) <= known else None
    except LabelError:
        return None


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([{"domain": None, **row} for row in rows], schema)
