"""What people say of answers: bound to an answer's id, on the disk before it is acknowledged, and counted once.

``<home>/serving/feedback/<chain>/<UTC date>.jsonl`` holds a line a vote. A client may change its mind, so the newest line of an
(id, index, client) counts; it may vote so many times a day, so that no client outvotes the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from llm_assets.corpus.pii import mask_all
from llm_assets.serving.answers import moment_of
from llm_assets.serving.dated_files import DatedFiles, dated_files, lines_with
from llm_assets.serving.errors import ApiError
from llm_assets.serving.group_commit import GroupCommit
from llm_assets.store.journal import Journal

logger = logging.getLogger(__name__)

Rating = Literal["up", "down"]


@dataclass(frozen=True)
class Vote:
    """What one client says of one text's answer."""

    chain: str
    id: str
    index: int
    client: str
    rating: Rating | None
    label: str | None  # the right one
    comment: str | None
    is_reply: bool = False  # whether the label is a reply in the client's words

    @property
    def texts(self) -> list[str]:
        """What of it the client wrote freely."""
        return [text for text in (self.label if self.is_reply else None, self.comment) if text]

    def said(self, masked: Iterator[str]) -> dict[str, Any]:
        """All of a line but its time; ``masked`` gives each of ``texts`` with personal data masked."""
        label = next(masked) if self.is_reply and self.label else self.label
        spoken = {"rating": self.rating, "label": label, "comment": next(masked) if self.comment else self.comment}
        return {"id": self.id, "index": self.index, "client": self.client, **spoken}


def feedback_folder(home: Path) -> Path:
    """Where the votes of a data root stand: ``<chain>/<UTC date>.jsonl``."""
    return home / "serving" / "feedback"


def read_votes(home: Path, chain: str) -> list[dict[str, Any]]:
    """The newest vote of each (id, index, client), in the order of their files, oldest first; lines cut off are passed over."""
    newest: dict[tuple[str, int, str], dict[str, Any]] = {}
    for path in dated_files(feedback_folder(home), chain):
        for vote in Journal(path).entries():
            key = (vote["id"], vote["index"], vote["client"])
            newest.pop(key, None)  # so that the order is that of the lines that count
            newest[key] = vote
    return list(newest.values())


class Feedback:
    """Stores votes; those that come together share one write."""

    def __init__(self, home: Path) -> None:
        self._files = DatedFiles(feedback_folder(home))
        self._group = GroupCommit(self._in_thread)
        self._day: date | None = None
        self._counts: dict[str, int] = {}  # votes of a client today

    async def store(self, vote: Vote, votes_per_day: int) -> bool:
        """Return once the vote is on the disk: False where it stood there already, word for word.

        Raises ``ApiError``: 429 when the client has had its votes for today, 503 when the vote cannot be written.
        """
        return await self._group.submit((vote, votes_per_day))

    async def close(self) -> None:
        """End the writing and close every file."""
        await self._group.end()
        self._files.close()

    async def _in_thread(self, group: list[tuple[Vote, int]]) -> list[bool | Exception]:
        return await asyncio.to_thread(self._commit, group)

    def _commit(self, group: list[tuple[Vote, int]]) -> list[bool | Exception]:
        moment = datetime.now(UTC)
        self._turn_to(moment.date())
        masked = iter(mask_all([text for vote, _ in group for text in vote.texts])[0])
        results: list[bool | Exception] = []
        fresh: dict[tuple[str, int, str], dict[str, Any]] = {}
        lines: dict[str, bytes] = {}
        for vote, most in group:
            said = vote.said(masked)
            key = (vote.id, vote.index, vote.client)
            standing = fresh.get(key) or self._standing(vote)
            if standing and all(standing.get(name) == value for name, value in said.items()):
                results.append(False)
            elif self._counts.get(vote.client, 0) >= most:
                results.append(_enough(vote.client, most, moment))
            else:
                fresh[key] = said
                self._counts[vote.client] = self._counts.get(vote.client, 0) + 1
                lines[vote.chain] = lines.get(vote.chain, b"") + _line(said, moment)
                results.append(True)
        failed = self._files.append(lines, moment.date())
        if not failed:
            return results
        self._day = None  # count again what the files really hold
        for chain, error in failed.items():
            logger.error("%s cannot be written (%s): free space or mend its permissions", self._files.path(chain, moment.date()), error)
        unstored = ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "the feedback could not be stored; the gateway's log says why")
        return [unstored if vote.chain in failed else result for (vote, _), result in zip(group, results, strict=True)]

    def _turn_to(self, day: date) -> None:
        """Count the votes of a day that the clock has come to, from its files."""
        if day == self._day:
            return
        self._counts = {}
        for path in self._files.all_of(day):
            for line in Journal(path).entries():
                self._counts[line["client"]] = self._counts.get(line["client"], 0) + 1
        self._day = day

    def _standing(self, vote: Vote) -> dict[str, Any] | None:
        """The client's newest vote on this answer, from the files since the answer was made."""
        moment = moment_of(vote.id)
        since = moment.date() - timedelta(days=1) if moment else date.min  # a clock may have jumped
        found = None
        for path in self._files.since(vote.chain, since):
            for line in lines_with(path, vote.id):
                if (line.get("id"), line.get("index"), line.get("client")) == (vote.id, vote.index, vote.client):
                    found = line
        return found


def _line(said: Mapping[str, Any], moment: datetime) -> bytes:
    return json.dumps({"id": said["id"], "index": said["index"], "at": moment.isoformat(), **said}, ensure_ascii=False).encode() + b"\n"


def _enough(client: str, most: int, moment: datetime) -> ApiError:
    midnight = (moment + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = 1 + int((midnight - moment).total_seconds())
    message = f"{client} has voted {most} times today, which is the limit of a client: come again tomorrow (UTC)"
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, message, headers={"Retry-After": str(seconds)})
