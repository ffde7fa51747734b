"""feedback_batch: votes of users become labelled texts, in an immutable batch that labelled_examples reads."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_assets.corpus.batches import batch_files, batch_folder, read_batches, subject, verdict, write_batch
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.operation.champion import Released, released
from llm_assets.operation.votes import Voted, cleaned, joined, majority, votes
from llm_assets.store.fingerprint import digest
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import LabelError, parts

REASONS = ("no_label", "unknown_label", "tie", "outvoted", "client_cap", "erased")
OF_REPLIES = (
    "not_whole",  # the log holds no whole conversation of user and assistant, or the reply was cut off
    "of_an_adapter",  # which was asked for its own tasks: as a conversation without one it would teach every conversation to be answered so
)


class FeedbackBatchConfig(Section):
    """When votes become a batch, and what one client may have of it."""

    minimum: int = Field(20, ge=1, description="newly labelled texts, below which no batch is written")
    client_share: float = Field(0.5, gt=0, le=1, description="of a batch that may rest on one client's word alone")
    client_rows: int = Field(500, ge=1, description="texts of a batch that may rest on one client's word alone")


@dataclass(frozen=True)
class Labelled:
    """A text with the label that most of its voters gave."""

    key: str
    label: str
    voted: Voted  # the newest vote for the label
    clients: frozenset[str]  # who voted for it


def feedback_batch(office: Office, config: FeedbackBatchConfig) -> Acted:
    """Turns votes into labelled texts: a corrected label counts for itself, a thumb up for the label that was answered.

    Of a chain that talks the label is a reply: the corrected one, or the one that got a thumb up; one with a thumb down alone is
    kept as wrong, which `aligned_model` learns from. Votes on an adapter's replies are counted and left out: that was asked for its own
    tasks. One client has one vote a text, or a reply. The majority decides, a tie decides
    nothing, and what rests on the word of one client alone is capped, so that nobody outvotes the rest; what the cap holds back waits
    for the next batch. The texts are those of the request log, masked and cleaned like the corpus's, and so are corrected replies; what
    `llm-assets forget` erased stays out, and so do votes that were withdrawn. A batch is written once there are enough, and never
    changed: it stands in `data/feedback/<chain>/`, where `labelled_examples.feedback.folder` finds it, and
    `aligned_model.feedback.folder`. Evaluation text is taken out there.
    """
    cast = votes(office.home, office.chain)
    folder = batch_folder(office.home, office.chain)
    batched = _batched(folder)
    voted = cleaned(each for each in joined(office.home, office.chain, cast) if each.vote.answer not in batched)
    reasons = (*REASONS, *OF_REPLIES) if any(each.is_reply for each, _ in voted) else REASONS
    left_out: Counter[str] = Counter(dict.fromkeys(reasons, 0))
    labels = _labels(office.home, office.chain)
    stones = Tombstones.of(office.home)
    standing = [(each, text) for each, text in voted if all(stones.standing(_doc_ids(each, text)))]
    left_out["erased"] = len(voted) - len(standing)
    found = decide(standing, labels, left_out)
    kept = capped(found, config.client_share, config.client_rows)
    left_out["client_cap"] = len(found) - len(kept)
    enough = len(kept) >= config.minimum
    rows = [_row(each, text) for each, text in kept]
    path = write_batch(folder, rows) if enough else None
    clients = Counter(client for each, _ in kept for client in each.clients)
    record = {
        "batch": path.stem if path else None,
        "rows": len(kept) if path else 0,
        "waiting": 0 if path else len(kept),
        "minimum": config.minimum,
        "votes": len(cast),
        "labels": dict(sorted(Counter(map(verdict, rows)).items())),
        "clients": len(clients),
        "largest_client": max(clients.values(), default=0),
        "left_out": dict(left_out),
        "batches": len(batch_files(folder)),
    }
    return Acted(record, digest([file.stem for file in batch_files(folder)])[:24])


def capped(found: Sequence[tuple[Labelled, str]], share: float, most: int) -> list[tuple[Labelled, str]]:
    """What is left when of those that rest on one client alone each client keeps ``most``, and ``share`` of all that is left.

    Which of a client's texts stay is drawn by hash, so that the client cannot choose.
    """
    agreed = [each for each in found if len(each[0].clients) > 1]
    alone: dict[str, list[tuple[Labelled, str]]] = defaultdict(list)
    for each in found:
        if len(each[0].clients) == 1:
            alone[next(iter(each[0].clients))].append(each)
    for rows in alone.values():
        rows.sort(key=lambda each: hashlib.sha256(f"client:{each[0].key}".encode()).digest())
    cap = min(most, max(map(len, alone.values()), default=0))
    while cap and cap > share * (len(agreed) + sum(min(len(rows), cap) for rows in alone.values())):
        cap -= 1
    return [*agreed, *(each for _, rows in sorted(alone.items()) for each in rows[:cap])]


def decide(voted: Iterable[tuple[Voted, str]], labels: Released | None, left_out: Counter[str]) -> list[tuple[Labelled, str]]:
    """The majority's label of each text, or of each reply to one, with the text; ``left_out`` counts the votes and texts that came to nothing."""
    ballots: dict[str, dict[str, tuple[Voted, str]]] = defaultdict(dict)
    for each, text in sorted(voted, key=lambda pair: pair[0].vote.at):
        if each.adapter:
            left_out["of_an_adapter"] += 1
        elif each.is_reply and not text:
            left_out["not_whole"] += 1
        elif each.label is None:
            left_out["no_label"] += 1
        elif not each.is_reply and not _is_known(each.label, labels):
            left_out["unknown_label"] += 1
        else:
            ballots[subject(text, each.reply)][each.vote.client] = (each, text)  # the client's newest vote on this text
    found = []
    for key, ballot in ballots.items():
        label = majority(str(each.label) for each, _ in ballot.values())
        if label is None:
            left_out["tie"] += 1
            continue
        agreeing = {client: pair for client, pair in ballot.items() if pair[0].label == label}
        left_out["outvoted"] += len(ballot) - len(agreeing)
        newest, text = max(agreeing.values(), key=lambda pair: (pair[0].vote.at, pair[0].vote.answer))
        found.append((Labelled(key, label, newest, frozenset(agreeing)), text))
    return found


def _is_known(label: str, model: Released | None) -> bool:
    """Whether the released model could answer so; anything may be true where none is released."""
    if model is None:
        return True
    settings = model.settings
    problem = settings.get("problem", "single_label")
    try:
        names = parts(label, problem)
    except LabelError:
        return False
    return problem == "regression" or set(names) <= set(settings["labels"])


def _labels(home: Path, chain: str) -> Released | None:
    try:
        return released(home, chain)
    except ArtifactError:  # its files are elsewhere: labelled_examples asks the same question again
        return None


def _batched(folder: Path) -> set[tuple[str, int]]:
    """The answers whose votes stand in a batch."""
    rows = read_batches(folder)
    return set(zip(rows["id"].to_pylist(), rows["index"].to_pylist(), strict=True))


def _doc_ids(voted: Voted, text: str) -> list[str]:
    """What may have been erased of what a row would hold: the text, or each turn, each reply, and all of it."""
    from llm_assets.corpus.documents import doc_id

    if not voted.is_reply:
        return [doc_id(text)]
    replies = [one for one in (voted.answered, voted.corrected) if one]
    return list(map(doc_id, [text, *text.split("\n"), *replies, *(f"{text}\n{reply}" for reply in replies)]))


def _row(labelled: Labelled, text: str) -> dict[str, Any]:
    from llm_assets.corpus.documents import doc_id

    reply = labelled.voted.reply
    document = text if reply is None else f"{text}\n{labelled.label or reply}"
    identity, index = labelled.voted.vote.answer
    at = labelled.voted.vote.at.isoformat()
    votes_for = len(labelled.clients)
    return {
        "doc_id": doc_id(document), "id": identity, "index": index, "at": at, "text": text, "label": labelled.label, "votes": votes_for,
        "provenance": "feedback", **({} if reply is None else {"answered": reply}),
    }  # fmt: skip


def _no_client_rules(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    held = record["left_out"]["client_cap"]
    written = f"batch {record['batch']} of {record['rows']} texts" if record["batch"] else f"{record['waiting']} of {record['minimum']} texts wait"
    waits = f"{held} more rest on one client's word and wait for others' votes; client_share: 1 hears a client alone"
    said = f"{written}, from {record['clients']} clients" + (f"; {waits}" if held else "")
    return Verdict(check="no_client_rules", passed=not held, description=said, values={"held_back": held})


LINK = Link(
    name="feedback_batch",
    version=1,
    make=feedback_batch,
    config=FeedbackBatchConfig,
    inputs=(),
    stage="service",
    role="technical_expert",
    kinds=("parquet",),
    checks=(Check("no_client_rules", "No client's votes had to be held back.", _no_client_rules, blocking=False),),
    act=True,
    reads=("request_log",),
)
