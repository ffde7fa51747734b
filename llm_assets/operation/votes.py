"""Votes on answers: what users said of each, one voice a client, joined to the answer and to the text it was of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.audit.records import MARK
from llm_assets.corpus.batches import batch_folder, withdrawals
from llm_assets.corpus.conversations import Turn, text_of, turns
from llm_assets.operation.log import Reply, requests
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
    masked: str  # the text; of a reply the conversation before it, a turn a line, empty where it is not there whole
    answered: str  # the label, or the reply
    corrected: str | None  # what should have been answered, where the client said it
    is_reply: bool = False
    adapter: str = ""  # that gave the reply, beside the model

    @property
    def label(self) -> str | None:
        """What the vote is for: the corrected label or reply, else the answered one where that got a thumb up.

        None where it says only that a label is wrong, and empty where it says that of a reply: that can be learned from, too.
        """
        if self.corrected is not None:
            return self.corrected
        if self.vote.rating == "up":
            return self.answered
        return "" if self.is_reply and self.vote.rating == "down" else None

    @property
    def reply(self) -> str | None:
        """The reply that was voted on; None where a label was answered."""
        return self.answered if self.is_reply else None


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
                for vote in waiting.get((request.id, text.index), ()):
                    if text.reply is not None:
                        yield _on_reply(vote, text.reply, text.label)._replace(adapter=request.adapter)
                    elif text.masked is not None:
                        yield Voted(vote, text.masked, text.label, vote.label)


def cleaned(voted: Iterable[Voted]) -> list[tuple[Voted, str]]:
    """Votes with their texts, cleaned as the corpus is; of a conversation turn by turn, with what was replied and what should have been."""
    from llm_assets.corpus.cleaning import clean_texts

    known = list(voted)
    pieces = [[*each.masked.split("\n"), each.answered, each.corrected or ""] if each.is_reply else [each.masked] for each in known]
    done = iter(clean_texts([piece for group in pieces for piece in group]).texts)
    return [_with_texts(each, [next(done) for _ in group]) for each, group in zip(known, pieces, strict=True)]


def majority(labels: Iterable[str]) -> str | None:
    """The label with the most votes; None for a tie or no vote."""
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _on_reply(vote: Vote, reply: Reply, finish: str) -> Voted:
    """A vote on a reply. One that was cut off, or is not in the log whole, is no right reply and no wrong one: what it lacks is unknown."""
    corrected = None if vote.label == MARK else vote.label
    whole = reply.is_whole and (finish == "stop" or corrected is not None)
    return Voted(vote, reply.asked if whole else "", reply.masked or "", corrected, is_reply=True)


def _with_texts(voted: Voted, texts: Sequence[str]) -> tuple[Voted, str]:
    if not voted.is_reply:
        return voted, texts[0]
    *said, answered, corrected = texts
    text = text_of(Turn(turn.role, content) for turn, content in zip(turns(voted.masked), said, strict=False))
    answered, corrected = (text_of([Turn("user", one)]) for one in (answered, corrected))
    found = voted._replace(answered=answered, corrected=corrected or None)
    return found, text if answered and len(turns(text)) % 2 else ""


def _withdrawn(home: Path, chain: str) -> set[VoteKey]:
    entries = withdrawals(batch_folder(home, chain)).entries()
    return {(identity, index, client, at) for entry in entries for identity, index, client, at in entry["votes"]}


def _vote(line: Mapping[str, Any]) -> Vote | None:
    try:
        label = None if line.get("label") is None else str(line["label"])
        return Vote((str(line["id"]), int(line["index"])), str(line["client"]), datetime.fromisoformat(line["at"]), line.get("rating"), label)
    except (KeyError, TypeError, ValueError):
        return None
