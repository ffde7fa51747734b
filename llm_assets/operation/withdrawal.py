"""Taking votes back that turned out wrong: what would no longer count, and the record of who withdrew it and why.

Nothing is deleted. The votes stay in the service's files and the batches as they were written; a journal beside the batches names
the votes and rows that no longer count. `labelled_examples` reads only what is left and has it in its recipe, so the next run learns without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_assets.corpus import pii
from llm_assets.corpus.batches import batch_files, batch_folder, row_key, standing_rows, subject, withdrawals
from llm_assets.operation.feedback_batch import decide
from llm_assets.operation.votes import Vote, Voted, cleaned, joined, vote_key, votes
from llm_assets.serving.events import append_event
from llm_assets.store.store import Store

Row = Mapping[str, Any]


class WithdrawalError(RuntimeError):
    """What is to be withdrawn is not there, or not said."""


@dataclass(frozen=True)
class Wanted:
    """What is to be withdrawn: one batch, or what a client said, all there is or of a span of time, or what anybody said in it."""

    batch: str = ""  # a batch's name, or its beginning
    client: str = ""  # name of the key, or anonymous
    since: datetime | None = None  # with a time zone
    until: datetime | None = None  # not included

    def __str__(self) -> str:
        """As an operator reads it."""
        if self.batch:
            return f"batch {self.batch}"
        span = [f"{word} {moment.isoformat()}" for word, moment in (("since", self.since), ("until", self.until)) if moment]
        return " ".join(["votes", *([f"of {self.client}"] if self.client else []), *span])


@dataclass(frozen=True)
class Withdrawal:
    """What no longer counts when that is done."""

    votes: Sequence[Vote]
    rows: Mapping[str, Sequence[Row]]  # of batches, by their name
    left: Mapping[str, int]  # rows that these batches have left

    @property
    def texts(self) -> int:
        """How many labelled texts these are."""
        return sum(map(len, self.rows.values()))


def plan_withdrawal(home: Path, chain: str, wanted: Wanted) -> Withdrawal:
    """What of the votes and batches of a chain is meant; what was withdrawn before is no part of it.

    Of a batch all rows are, and the votes for their labels on these texts, so that no later batch has them again. Of votes each row
    of feedback whose label is no longer that of the majority of the votes left; one that others gave too stays. Labels of annotators
    are no votes, and go by their batch alone. Raises ``WithdrawalError`` where it is not said what is meant, or no such batch exists.
    """
    if bool(wanted.batch) == bool(wanted.client or wanted.since or wanted.until):
        raise WithdrawalError("say what is wrong: a batch, which goes as a whole, or else a client, a span of time, or both")
    batches = {path.stem: standing_rows(path).to_pylist() for path in batch_files(batch_folder(home, chain))}
    cast = votes(home, chain)
    spoken = _by_text(home, chain, cast)
    if wanted.batch:
        name = _named(wanted.batch, batches, chain)
        found, said = {name: batches[name]}, _for_the_rows(batches[name], cast, spoken)
    else:
        said = [vote for vote in cast if _is_meant(vote, wanted)]
        found = _no_longer_carried(batches, said, spoken)
    rows = {name: taken for name, taken in found.items() if taken}
    return Withdrawal(said, rows, {name: len(batches[name]) - len(taken) for name, taken in rows.items()})


def withdraw(store: Store, chain: str, wanted: Wanted, by: str, reason: str) -> Withdrawal:
    """Do it, under the lock of the act that writes batches; the reason is kept with personal data masked.

    Raises ``WithdrawalError`` where there is nothing to withdraw, or no reason is given.
    """
    if not reason.strip():
        raise WithdrawalError("no reason is given: say why these votes are wrong")
    said = pii.mask(reason.strip())[0]
    with store.act_lock(chain, "feedback_batch"):
        found = plan_withdrawal(store.home, chain, wanted)
        if not (found.votes or found.texts):
            raise WithdrawalError(f"{wanted}: {chain} has none that count")
        asked = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(wanted).items() if value}
        withdrawals(batch_folder(store.home, chain)).append(
            {
                "by": by,
                "reason": said,
                "asked": asked,
                "rows": [row_key(row) for rows in found.rows.values() for row in rows],
                "votes": [vote_key(vote) for vote in found.votes],
            }
        )
    message = f"{by} withdrew {wanted} ({len(found.votes)} votes, {found.texts} labelled texts): {said}"
    append_event(store.home, chain, "withdrawal", message, by=by, reason=said, votes=len(found.votes), texts=found.texts)
    return found


def _named(beginning: str, batches: Mapping[str, Sequence[Row]], chain: str) -> str:
    found = [name for name in batches if name.startswith(beginning)]
    if len(found) != 1:
        listed = ", ".join(found or batches) or "none"
        raise WithdrawalError(f"{len(found)} batches of {chain} begin with {beginning}; there are: {listed} (llm-assets feedback list {chain})")
    return found[0]


def _is_meant(vote: Vote, wanted: Wanted) -> bool:
    return (
        (not wanted.client or vote.client == wanted.client)
        and (wanted.since is None or vote.at >= wanted.since)
        and (wanted.until is None or vote.at < wanted.until)
    )


def _by_text(home: Path, chain: str, cast: Sequence[Vote]) -> list[tuple[Voted, str]]:
    """The votes whose answer the request log still holds, each with its text, cleaned as in a batch."""
    return cleaned(joined(home, chain, cast))


def _for_the_rows(rows: Sequence[Row], cast: Sequence[Vote], spoken: Sequence[tuple[Voted, str]]) -> list[Vote]:
    """The votes for the labels of rows: on their texts by whatever answer, and on their own answers where the log is gone."""
    labels = {(subject(row["text"], row["answered"]), row["label"]) for row in rows}
    answers = {(row["id"], row["index"]): row["label"] for row in rows}
    meant = {voted.vote for voted, text in spoken if (subject(text, voted.reply), voted.label) in labels}
    known = {voted.vote for voted, _ in spoken}
    meant |= {vote for vote in cast if vote not in known and vote.label in (answers.get(vote.answer), None) and vote.answer in answers}
    return [vote for vote in cast if vote in meant]


def _no_longer_carried(batches: Mapping[str, Sequence[Row]], said: Sequence[Vote], spoken: Sequence[tuple[Voted, str]]) -> dict[str, list[Row]]:
    """The rows of feedback that rest on votes, and whose label the other votes do not give."""
    gone = set(said)
    touched = {subject(text, voted.reply) for voted, text in spoken if voted.vote in gone}
    answers = {vote.answer for vote in said}
    left = {each.key: each.label for each, _ in decide([pair for pair in spoken if pair[0].vote not in gone], None, Counter())}

    def falls(row: Row) -> bool:
        key = subject(row["text"], row["answered"])
        rests = key in touched or (row["id"], row["index"]) in answers
        return rests and row["provenance"] == "feedback" and left.get(key) != row["label"]

    return {name: [row for row in rows if falls(row)] for name, rows in batches.items()}
