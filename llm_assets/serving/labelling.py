"""The queue of answers to label by hand and what annotators said of them: files that the gateway's page reads and writes.

``<home>/serving/annotation/<chain>.jsonl`` holds an entry a time that texts were chosen: ``{"at", "exported": [[id, index]], ...}``,
with ``"tasks", "labels", "problem"`` where they are for the page, and ``"taken"`` where they came into a batch. ``<chain>.labels.jsonl``
beside it holds a line a label: ``{"at", "id", "index", "annotator", "client", "label"}``, null for a text that was skipped; the newest
line of an annotator counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_assets.serving.engine import SEPARATOR
from llm_assets.store.journal import Journal


@dataclass(frozen=True)
class Task:
    """An answered text that is worth labelling."""

    id: str  # of the answer
    index: int
    text: str  # masked
    answered: str  # the model's label
    release: str
    reason: str  # why it was chosen


@dataclass(frozen=True)
class Queue:
    """What is to be labelled, and what labels there are."""

    tasks: Sequence[Task]
    labels: Sequence[str]
    problem: str


@dataclass(frozen=True)
class Said:
    """What annotators said of one task."""

    at: str  # of the newest label, ISO 8601
    labels: Mapping[str, str | None]  # by annotator; None: skipped

    @property
    def ballot(self) -> dict[str, str]:
        """The labels, without who skipped it."""
        return {annotator: label for annotator, label in self.labels.items() if label is not None}


def chosen_journal(home: Path, chain: str) -> Journal:
    """The answers that were chosen for labelling, here or in Label Studio."""
    return Journal(home / "serving" / "annotation" / f"{chain}.jsonl")


def labels_journal(home: Path, chain: str) -> Journal:
    """What was said of them on the page."""
    return Journal(home / "serving" / "annotation" / f"{chain}.labels.jsonl")


def enqueue(home: Path, chain: str, queue: Queue) -> None:
    """Put tasks behind those that wait."""
    named = [[task.id, task.index] for task in queue.tasks]
    chosen_journal(home, chain).append({"exported": named, **asdict(queue)})


def dequeue(home: Path, chain: str, answers: Iterable[tuple[str, int]]) -> None:
    """Note that the labels of answers, given by id and index, came into a batch: nobody is asked for them any more."""
    chosen_journal(home, chain).append({"exported": [], "taken": [list(answer) for answer in answers]})


def queued_chains(home: Path) -> list[str]:
    """The chains that have a queue, be it empty by now."""
    names = (path.name.removesuffix(".jsonl") for path in sorted((home / "serving" / "annotation").glob("*.jsonl")))
    return [name for name in names if "." not in name and read_queue(home, name)]


def read_queue(home: Path, chain: str) -> Queue | None:
    """What was put into a chain's queue and came into no batch yet, the oldest first, with the newest labels; None where nothing was put."""
    tasks: dict[tuple[str, int], Task] = {}
    newest = None
    for entry in chosen_journal(home, chain).entries():
        for identity, index in entry.get("taken", ()):
            tasks.pop((identity, index), None)
        if "tasks" in entry:
            newest = entry
            tasks |= {(task["id"], task["index"]): Task(**task) for task in entry["tasks"]}
    return Queue(list(tasks.values()), newest["labels"], newest["problem"]) if newest else None


def write_label(home: Path, chain: str, task: Task, annotator: str, client: str, label: str | None) -> None:
    """Store what an annotator says of a task; it is on the disk when this returns."""
    said = {"id": task.id, "index": task.index, "annotator": annotator, "client": client, "label": label}
    labels_journal(home, chain).append(said)


def read_labels(home: Path, chain: str) -> dict[tuple[str, int], Said]:
    """What annotators said, by answer and index; lines cut off are passed over."""
    labels: dict[tuple[str, int], dict[str, str | None]] = defaultdict(dict)
    newest: dict[tuple[str, int], str] = {}
    for line in labels_journal(home, chain).entries():
        key = line["id"], line["index"]
        labels[key][line["annotator"]] = line["label"]
        newest[key] = line["at"]
    return {key: Said(newest[key], given) for key, given in labels.items()}


def next_task(queue: Queue, said: Mapping[tuple[str, int], Said], annotator: str) -> Task | None:
    """The oldest task of which an annotator has said nothing, so that all come by the same texts in the same order."""
    return next((task for task in queue.tasks if annotator not in _labels_of(said, task)), None)


def _labels_of(said: Mapping[tuple[str, int], Said], task: Task) -> Mapping[str, str | None]:
    found = said.get((task.id, task.index))
    return found.labels if found else {}


def misfit(problem: str, label: str, labels: Sequence[str]) -> str | None:
    """What a label should have been that is not written like an answer of the model, such as `a number`; None for one that is."""
    if problem == "regression":
        try:
            return None if math.isfinite(float(label)) else "a number"
        except ValueError:
            return "a number"
    said = label.split(SEPARATOR) if problem == "multi_label" else [label]
    return None if set(said) <= set(labels) else f"one of {', '.join(labels)}"
