"""The annotation queue: the answers worth labelling, to the gateway's page or Label Studio, and back in a batch for labelled_examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field

from llm_assets.corpus.batches import batch_folder, read_batches, write_batch
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.operation import label_studio
from llm_assets.operation.champion import Released, released
from llm_assets.operation.drift import DriftConfig
from llm_assets.operation.profile import LENGTH, Profile, TooSmallError, profile_of
from llm_assets.operation.traffic import Row, newest_rows
from llm_assets.operation.votes import majority
from llm_assets.serving import labelling
from llm_assets.serving.agreement import Agreement, agreements
from llm_assets.store.strict import Strict
from llm_assets.training.heads import LabelError, Problem, canonical, parts

Reason = Literal["disagreement", "uncertainty", "novelty", "random"]


class AnnotationError(ValueError):
    """Nothing can be exported, or what came back may not be learned from; the message says why."""


class Annotation(Strict):
    """What is worth labelling, and when two annotators agree well enough."""

    texts: int = Field(
        100, ge=4, description="of an export: a quarter each where another release disagrees, uncertain, unlike the training texts, random"
    )
    days: int = Field(30, ge=1, description="of traffic that is looked through")
    minimum_kappa: float = Field(
        0.4, ge=-1, le=1, description="Cohen's kappa of two annotators, below which an import is refused; 0.4 is where fair agreement ends"
    )
    common: int = Field(20, ge=2, description="texts that two annotators must both have labelled for their kappa to count")


@dataclass(frozen=True)
class Imported:
    """What came of an import."""

    batch: str | None
    rows: int
    left_out: Mapping[str, int]
    agreements: Sequence[Agreement]


def queue(home: Path, chain: str, settings: Annotation, drift: DriftConfig) -> list[tuple[Row, Reason]]:
    """The answered texts worth labelling, each with the reason: no text twice, none that was exported or is in a batch already.

    Each reason gets a quarter; what one cannot fill goes to the random share, which is the only one that tells how good the
    model is. Lewis and Gale 1994 (uncertainty), Seung et al. 1992 (disagreement of a committee, here of two releases).
    """
    rows, differed = _candidates(home, chain, settings.days)
    quota = settings.texts // 4
    taken: dict[str, tuple[Row, Reason]] = {}

    def take(reason: Reason, ranked: Iterable[Row], most: int) -> None:
        for row in ranked:
            if most <= 0:
                break
            if row["sha256"] not in taken:
                taken[row["sha256"]] = row, reason
                most -= 1

    shuffled = sorted(rows, key=lambda row: hashlib.sha256(f"annotation:{row['sha256']}".encode()).digest())
    take("disagreement", (row for row in shuffled if row["sha256"] in differed), quota)
    take("uncertainty", sorted((row for row in shuffled if row["probability"] is not None), key=lambda row: row["probability"]), quota)
    take("novelty", _by_novelty(home, chain, shuffled, drift), quota)
    take("random", shuffled, settings.texts - len(taken))
    return list(taken.values())


def export(home: Path, chain: str, settings: Annotation, drift: DriftConfig) -> tuple[list[dict[str, Any]], str]:
    """The queue as Label Studio's tasks, and the configuration of a project for them; what is exported is not exported again.

    Raises ``AnnotationError`` when there is nothing to label or nothing released.
    """
    release, chosen = _choose(home, chain, settings, drift)
    labelling.chosen_journal(home, chain).append({"exported": [[row["id"], row["index"]] for row, _ in chosen]})
    problem = _problem(release)
    return [label_studio.task(row, reason, problem) for row, reason in chosen], label_studio.project(release.settings["labels"], problem)


def put_on_page(home: Path, chain: str, settings: Annotation, drift: DriftConfig) -> list[labelling.Task]:
    """The queue to the gateway's page, behind what waits there; what is put there is not exported.

    Raises ``AnnotationError`` when there is nothing to label or nothing released.
    """
    release, chosen = _choose(home, chain, settings, drift)
    tasks = [labelling.Task(row["id"], row["index"], row["masked"], row["label"], row["release"], reason) for row, reason in chosen]
    labelling.enqueue(home, chain, labelling.Queue(tasks, release.settings["labels"], _problem(release)))
    return tasks


def take_in(home: Path, chain: str, exported: Any, settings: Annotation) -> Imported:
    """Write what annotators labelled, given as Label Studio's JSON export, as a batch of provenance `annotation`.

    The majority of a text's annotators decides, a tie leaves it out. Raises ``AnnotationError`` for a file that is no export,
    and where two annotators agree too little for their labels to mean anything.
    """
    problem = _problem(_release(home, chain))
    try:
        labelled = [label_studio.read(task, problem) for task in exported]
    except (KeyError, TypeError, AttributeError) as error:
        raise AnnotationError(f"this is no JSON export of Label Studio ({type(error).__name__}: {error}): export the project as JSON") from error
    return _batch(home, chain, labelled, settings)[0]


def take_from_page(home: Path, chain: str, settings: Annotation) -> Imported:
    """The same of what was labelled on the gateway's page; texts on which nobody, or no majority, has decided stay in its queue."""
    queued = labelling.read_queue(home, chain)
    if queued is None:
        raise AnnotationError(f"{chain} has no queue on the gateway's page: llm-assets annotate queue {chain}")
    said = labelling.read_labels(home, chain)
    labelled = [
        label_studio.Annotated(task.id, task.index, task.text, found.at, found.ballot)
        for task in queued.tasks
        if (found := said.get((task.id, task.index)))
    ]
    imported, decided = _batch(home, chain, labelled, settings)
    if decided:
        labelling.dequeue(home, chain, decided)
    return imported


def _batch(home: Path, chain: str, labelled: Sequence[label_studio.Annotated], settings: Annotation) -> tuple[Imported, list[tuple[str, int]]]:
    """What came of labelled texts, and the answers, by id and index, whose labels are in the batch."""
    from llm_assets.corpus.cleaning import clean_texts
    from llm_assets.corpus.documents import doc_id

    release = _release(home, chain)
    problem, known = _problem(release), set(release.settings["labels"])
    left_out = {"unlabelled": 0, "unknown_label": 0, "disagreement": 0, "erased": 0}
    ballots: list[dict[str, str]] = []
    for each in labelled:
        given = {annotator: _canonical(label, problem, known) for annotator, label in each.labels.items()}
        left_out["unknown_label"] += sum(label is None for label in given.values())
        ballots.append({annotator: label for annotator, label in given.items() if label is not None})
    found = agreements(ballots, settings.common)
    if poor := [one for one in found if one.kappa < settings.minimum_kappa]:
        said = "; ".join(f"{' and '.join(one.annotators)} on {one.texts} texts: {one.kappa:.2f}" for one in poor)
        raise AnnotationError(f"annotators agree too little (Cohen's kappa, at least {settings.minimum_kappa:g} is asked for): {said}")
    rows: list[dict[str, Any]] = []
    stones = Tombstones.of(home)
    for each, ballot, text in zip(labelled, ballots, clean_texts([each.text for each in labelled]).texts, strict=True):
        label = majority(ballot.values())
        if stones.standing([doc_id(text)]) == [False]:
            left_out["erased"] += 1  # `llm-assets forget` erased it after it was exported
            continue
        if label is None:
            left_out["disagreement" if ballot else "unlabelled"] += 1
            continue
        row = {"doc_id": doc_id(text), "id": each.id, "index": each.index, "at": each.at, "text": text, "label": label}
        rows.append({**row, "votes": list(ballot.values()).count(label), "provenance": "annotation"})
    batch = write_batch(batch_folder(home, chain), rows).stem if rows else None
    return Imported(batch, len(rows), left_out, found), [(row["id"], row["index"]) for row in rows]


def _choose(home: Path, chain: str, settings: Annotation, drift: DriftConfig) -> tuple[Released, list[tuple[Row, Reason]]]:
    release, chosen = _release(home, chain), queue(home, chain, settings, drift)
    if not chosen:
        raise AnnotationError(f"no traffic of {chain} is left to label: ask its gateway, then materialize {chain}/traffic")
    return release, chosen


def _candidates(home: Path, chain: str, days: int) -> tuple[list[Row], set[str]]:
    """The newest answer of each text, of those not exported or batched yet, and the texts on which two releases ever differed, by SHA-256."""
    batched = read_batches(batch_folder(home, chain))
    seen = set(zip(batched["id"].to_pylist(), batched["index"].to_pylist(), strict=True))
    seen |= {(identity, index) for entry in labelling.chosen_journal(home, chain).entries() for identity, index in entry["exported"]}
    rows: dict[str, Row] = {}
    done: set[str] = set()
    differed: set[str] = set()
    for row in newest_rows(home, chain, days):
        if row["shadow"] not in (None, row["label"]):
            differed.add(row["sha256"])
        if (row["id"], row["index"]) in seen:
            done.add(row["sha256"])
        elif row["masked"] is not None:
            rows.setdefault(row["sha256"], row)
    return [row for key, row in rows.items() if key not in done], differed


def _by_novelty(home: Path, chain: str, rows: Sequence[Row], drift: DriftConfig) -> list[Row]:
    """Rows by how surprising their letters are to somebody who knows the training texts, the most surprising first."""
    release = _release(home, chain)
    try:
        profile = profile_of(home, release, drift.sizes, drift.false_alarms)
    except TooSmallError:
        return []
    value = dict(zip((row["sha256"] for row in rows), surprise(profile, [row["masked"] for row in rows]), strict=True))
    return sorted(rows, key=lambda row: -value[row["sha256"]])


def surprise(profile: Profile, texts: Sequence[str]) -> list[float]:
    """Bits a letter or pair of letters, by their frequencies in the training texts: the cross-entropy of each text."""
    import numpy as np

    from llm_assets.operation.features import gram_counts

    sums = np.asarray(profile.sums["vocabulary"]) + 1
    counts = gram_counts([text[:LENGTH] for text in texts])
    bits: list[float] = (counts @ -np.log2(sums / sums.sum()) / np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)).tolist()
    return bits


def _release(home: Path, chain: str) -> Released:
    found = released(home, chain)
    if found is None:
        raise AnnotationError(f"{chain} has no release whose labels could be given: llm-assets run {chain}")
    return found


def _problem(release: Released) -> Problem:
    return cast(Problem, release.settings.get("problem", "single_label"))


def _canonical(label: str, problem: Problem, known: set[str]) -> str | None:
    try:
        written = canonical(label, problem)
    except LabelError:
        return None
    return written if problem == "regression" or set(parts(written, problem)) <= known else None
