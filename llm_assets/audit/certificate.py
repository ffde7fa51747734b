"""What was done to erase a text, and what a search of everything found afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_assets.audit.search import search
from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.journal import now
from llm_assets.store.store import Store


@dataclass(frozen=True)
class Done:
    """What was done to erase a text, the first time and every further one together; ``failed`` is of this time."""

    purged: list[str] = field(default_factory=list)  # artifacts
    cleaned: list[str] = field(default_factory=list)  # records of the service and its tools, with how many of each
    failed: list[str] = field(default_factory=list)  # what could not be purged or cleaned, and why
    learners: list[str] = field(default_factory=list)  # models that learned from it, or show a piece of it
    to_retire: list[str] = field(default_factory=list)  # their releases
    out_of_reach: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Certificate(Done):
    """What was done, and what a search of every file found afterwards."""

    at: str
    tombstones: list[str]  # salted hashes, one a version of each text
    reason: str
    searched_files: int
    searched_bytes: int
    searched_tokens: int
    places: dict[str, int]  # files searched in each place
    found: list[str]  # files that still hold a piece of a text
    unread: list[str]  # what could not be looked into
    listed: list[str]  # of the files found, the ones of models that are still to be retired

    @property
    def is_clean(self) -> bool:
        """Whether all was done and looked into, and nothing holds the text but what is listed as to be retired."""
        return set(self.found) <= set(self.listed) and not self.unread and not self.failed

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        return {**asdict(self), "clean": self.is_clean}


def certify(stores: Sequence[Store], wanted: Sequence[str], tombstones: Iterable[str], reason: str, done: Done) -> tuple[Certificate, Path]:
    """Search every file for the probes; the certificate stands in ``<home>/audit/certificates/``, named by its tombstones."""
    outcome, stones = search(stores, wanted), sorted(tombstones)
    certificate = Certificate(
        **vars(done),
        at=now(),
        tombstones=stones,
        reason=reason,
        searched_files=outcome.files,
        searched_bytes=outcome.bytes,
        searched_tokens=outcome.tokens,
        places=outcome.places,
        found=outcome.found,
        unread=outcome.unread,
        listed=[path for path in outcome.found if any(f"/{learner}/" in f"/{path}" for learner in done.learners)],
    )
    path = _folder(stores[0].home) / f"{erasure_id(stones)}.json"
    write_json(path, certificate.as_json())
    return certificate, path


def erasure_id(tombstones: Iterable[str]) -> str:
    """What an erasure is called, its certificate and its page: the same for the same texts, and telling nothing of them."""
    return digest(sorted(tombstones))[:24]


def before(home: Path, tombstones: Iterable[str]) -> Done:
    """What earlier certificates that name one of the tombstones say was done."""
    wanted = set(tombstones)
    found = [value for value in _written(home) if wanted & set(value["tombstones"])]
    names = ("purged", "cleaned", "learners", "to_retire", "out_of_reach")
    return Done(**{name: list(dict.fromkeys(one for value in found for one in value[name])) for name in names})


def _written(home: Path) -> Iterator[dict[str, Any]]:
    """Every certificate, the oldest first."""
    yield from sorted((json.loads(path.read_text(encoding="utf-8")) for path in _folder(home).glob("*.json")), key=lambda value: value["at"])


def _folder(home: Path) -> Path:
    return home / "audit" / "certificates"
