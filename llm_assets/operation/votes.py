"""Votes on answers: what users said of each, one voice a client, joined to the answer and to the text it was of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.corpus.batches import batch_folder, withdrawals
from llm_assets.operation.log import requests
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.request_log import log_folder

Answer = tuple[str, int]  # the request's id, and the text's place in it
VoteKey = tuple[str, int, str, str]


class Vote(NamedTuple):
    """A client's last word on an answer."""

    answer: Answer
    client: str
    at: datetime
    rating: str | None  # "up", "down"
    label: str | None  # the right one, where the client gave it


class Voted(NamedTuple):
    """A vote, and what it was on."""

    vote: Vote
    masked: str
    answered: str  # the label that was answered

    @property
    def label(self) -> str | None:
        """The label the vote is for: the corrected one, else the answered one where that got a thumb up; None says only that it is wrong."""
        return self.vote.label if self.vote.label is not None else self.answered if self.vote.rating == "up" else None


def votes(home: Path, chain: str) -> list[Vote]:
    """The newest vote of each client on each answer, oldest first; withdrawn ones and lines that are no vote are passed over."""
    from llm_assets.serving.feedback import read_votes  # imports FastAPI

    gone = _withdrawn(home, chain)
    cast = [vote for line in read_votes(home, chain) if (vote := _vote(line)) is not None]
    return [vote for vote in cast if vote_key(vote) not in gone]


def vote_key(vote: Vote) -> VoteKey:
    """What a vote is known by: what the client says of the answer later is another one."""
    return *vote.answer, vote.client, vote.at.isoformat()


def joined(home: Path, chain: str, cast: Iterable[Vote]) -> Iterator[Voted]:
    """The votes whose answer the request log holds with its text, in the order of the log."""
    waiting: dict[Answer, list[Vote]] = defaultdict(list)
    for vote in cast:
        waiting[vote.answer].append(vote)
    wanted = {identity for identity, _ in waiting}
    for path in dated_files(log_folder(home), chain):
        for request in requests(path):
            if request is None or request.id not in wanted:
                continue
            for text in request.texts:
                if text.masked is not None:
                    for vote in waiting.get((request.id, text.index), ()):
                        yield Voted(vote, text.masked, text.label)


def majority(labels: Iterable[str]) -> str | None:
    """The label with the most votes; None for a tie or no vote."""
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _withdrawn(home: Path, chain: str) -> set[VoteKey]:
    entries = withdrawals(batch_folder(home, chain)).entries()
    return {(identity, index, client, at) for entry in entries for identity, index, client, at in entry["votes"]}


def _vote(line: Mapping[str, Any]) -> Vote | None:
    try:
        label = None if line.get("label") is None else str(line["label"])
        return Vote((str(line["id"]), int(line["index"])), str(line["client"]), datetime.fromisoformat(line["at"]), line.get("rating"), label)
    except (KeyError, TypeError, ValueError):
        return None
