"""Examples that came out of service: which of them may be learned from beside the corpus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
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

REASONS = ("unknown_label", "in_the_corpus", "contradictory", "repeated", "evaluation", "over_share")


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
    import numpy as np

    place = local(feedback.folder)
    rows = read_batches(place).to_pylist() if place else []
    known = set(labels) if labels is not None else {name for label in examples["label"].to_pylist() for name in parts(label, problem)}
    taken = {text_key(text) for text in examples["text"].to_pylist()}
    said: dict[str, set[str]] = defaultdict(set)
    fates = np.full(len(rows), -1)
    for index, row in enumerate(rows):
        row["label"], row["key"] = _canonical(row["label"], problem, known), text_key(row["text"])
        if row["label"] is None:
            fates[index] = 0
        elif row["key"] in taken:
            fates[index] = 1
        else:
            said[row["key"]].add(row["label"])
    newest = {row["key"]: index for index, row in enumerate(rows) if fates[index] < 0}
    for index in np.flatnonzero(fates < 0).tolist():
        if len(said[rows[index]["key"]]) > 1:
            fates[index] = 2
        elif newest[rows[index]["key"]] != index:
            fates[index] = 3
    left = np.flatnonzero(fates < 0)
    fates[left[evaluated([rows[index]["text"] for index in left], clean_corpus, evaluation_sets, scratch)]] = 4
    left = np.flatnonzero(fates < 0)
    room = len(left) if feedback.share == 1 else int(len(examples) * feedback.share / (1 - feedback.share))
    fates[left[: max(len(left) - room, 0)]] = 5
    counts = Counter(REASONS[fate] for fate in fates[fates >= 0].tolist())
    return _table([rows[index] for index in np.flatnonzero(fates < 0)], examples.schema), {reason: counts[reason] for reason in REASONS}


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
