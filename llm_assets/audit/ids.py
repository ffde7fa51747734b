"""What an id on the command line names: an answer of the gateway, a release, a run or an artifact."""

from __future__ import annotations

import difflib
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.audit.index import Index, Release
from llm_assets.audit.lineage import Name

SHORTEST = 4  # characters of a fingerprint that may stand for it
SUGGESTED = 3
RECENT = 200  # answers of each chain that are looked through for near ids


class UnknownIdError(LookupError):
    """Nothing has that id, or several things begin with it; the message names what is near."""


@dataclass(frozen=True)
class Answer:
    """One answered request as the gateway logged it."""

    id: str
    chain: str
    release: str
    at: str
    entry: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What an id names, and the index of the store that holds it."""

    index: Index
    kind: str  # answer, release or artifact
    roots: tuple[Name, ...]  # the artifacts it leads to: one, but for a run
    release: Release | None = None
    answer: Answer | None = None


def find(indexes: Sequence[Index], wanted: str) -> Found:
    """What an id names: an answer's id, a release, a fingerprint (or ``link/fingerprint``, or the beginning of one), or a run's id.

    Raises ``UnknownIdError`` naming near ids, or the candidates where several begin so.
    """
    if release := _release(indexes, wanted):
        return Found(release[0], "release", (("quantized_model", release[1].model),), release[1])
    link, _, prefix = wanted.rpartition("/")
    rows = [(index, row) for index in indexes for row in index.starting_with(prefix) if len(prefix) >= SHORTEST and link in ("", row.link)]
    distinct = {row.name: (index, row) for index, row in reversed(rows)}
    if len(distinct) == 1:
        ((index, row),) = distinct.values()
        return Found(index, "artifact", (row.name,))
    if distinct:
        raise UnknownIdError(f"{wanted!r} is the beginning of {', '.join(f'{one}/{other}' for one, other in sorted(distinct))}: say more of it")
    for index in indexes:
        if made := index.of_run(wanted):
            return Found(index, "run", tuple(row.name for row in made))
    if answer := find_answer(indexes[0].store.home, wanted):  # last: it reads the logs
        return _answered(indexes, answer)
    raise UnknownIdError(f"nothing here has the id {wanted!r}{_suggestion(indexes, wanted)}")


def _answered(indexes: Sequence[Index], answer: Answer) -> Found:
    if release := _release(indexes, answer.release):
        return Found(release[0], "answer", (("quantized_model", release[1].model),), release[1], answer)
    raise UnknownIdError(f"answer {answer.id} names release {answer.release}, which no release journal records: run `llm-assets verify`")


def find_answer(home: Path, wanted: str) -> Answer | None:
    """An answer by its id, looked for in the request logs' bytes, newest day first: 1 GB takes 0.2 s."""
    for path in _logs(home):
        with path.open("rb") as file:
            if not path.stat().st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                place = content.find(b'"id": ' + json.dumps(wanted, ensure_ascii=False).encode())
                if place < 0:
                    continue
                file.seek(content.rfind(b"\n", 0, place) + 1)
            entry = _entry(file.readline())
            if entry.get("id") == wanted and "release" in entry:
                return Answer(wanted, path.parent.name, entry["release"], entry.get("at", ""), entry)
    return None


def answers(home: Path, chain: str = "*", limit: int = RECENT) -> Iterator[Answer]:
    """The answers that the logs hold, newest day first, at most ``limit`` a day."""
    for path in _logs(home, chain):
        with path.open("rb") as file:
            for _, line in zip(range(limit), file, strict=False):
                if "release" in (entry := _entry(line)):
                    yield Answer(entry["id"], path.parent.name, entry["release"], entry.get("at", ""), entry)


def _logs(home: Path, chain: str = "*") -> list[Path]:
    return sorted((home / "serving" / "log").glob(f"{chain}/*.jsonl"), key=lambda path: path.name, reverse=True)


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and "id" in entry else {}


def _release(indexes: Sequence[Index], name: str) -> tuple[Index, Release] | None:
    """A release, with the index whose store has its model; where none has, the first one."""
    known = [(index, release) for index in indexes if (release := index.release(name))]
    holding = [(index, release) for index, release in known if index.artifact(("quantized_model", release.model))]
    return next(iter(holding or known), None)


def _suggestion(indexes: Sequence[Index], wanted: str) -> str:
    known = {one for index in indexes for one in index.ids()} | {answer.id for answer in answers(indexes[0].store.home)}
    short = re.fullmatch(r"[0-9a-f]{4,23}", wanted)  # the beginning of a fingerprint is near to what begins nearly so
    names = {one[: len(wanted)] if short else one: one for one in sorted(known)}
    near = difflib.get_close_matches(wanted, names, SUGGESTED, 0.6)
    if near:
        return f"; near to it: {', '.join(names[one] for one in near)}"
    return f"; there are {len(known)} ids, such as {', '.join(sorted(known, reverse=True)[:SUGGESTED])}" if known else ": nothing was made here yet"
