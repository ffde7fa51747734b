"""A chain's release journal, the truth about what was released; aliases elsewhere only mirror it.

An entry says that a release became champion, or that it waits as a candidate. A rollback is one more entry, for a release that
was champion before: what became champion after it is withdrawn, and becomes champion again only when somebody approves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.store.files import sha256_file
from llm_assets.store.journal import Entry, Journal
from llm_assets.store.ledger import Ledger, entry_hash

Record = Mapping[str, Any]  # what the release link returned

CHAMPION, CANDIDATE = "champion", "candidate"  # states of a record; entries of earlier versions have none and are champions


class ReleaseError(RuntimeError):
    """A release that there is not, or whose files are not those that were released."""


@dataclass(frozen=True)
class Standing:
    """What a release journal says, read to its end."""

    champions: tuple[Record, ...]  # the champion last, before it what rollbacks return to, one after the other
    released: tuple[Record, ...]  # whatever was champion once, oldest first
    waiting: Mapping[str, Record]  # candidates newer than the champion, by name, the newest last
    withdrawn: Mapping[str, Record]  # rolled back from and not approved since, by name

    @property
    def champion(self) -> Record | None:
        """The release in force."""
        return self.champions[-1] if self.champions else None

    @property
    def previous(self) -> Record | None:
        """What a rollback returns to."""
        return self.champions[-2] if len(self.champions) > 1 else None

    @property
    def candidate(self) -> Record | None:
        """The newest release that waits for approval."""
        return next(reversed(list(self.waiting.values())), None)

    @property
    def aliases(self) -> dict[str, str | None]:
        """Release by alias, as a registry mirrors them; with nothing waiting the champion is the candidate too."""
        named = {"candidate": self.candidate or self.champion, "champion": self.champion, "previous": self.previous}
        return {alias: record["release"] if record else None for alias, record in named.items()}

    def withdrew(self, fingerprint: str) -> bool:
        """Whether this model was rolled back from."""
        return any(record["quantized_model"] == fingerprint for record in self.withdrawn.values())


def release_journal(home: Path, chain: str) -> Journal:
    """Where the release link writes."""
    return Journal(home / "journal" / chain / "release.jsonl")


def standing(journal: Journal) -> Standing:
    """Read a release journal; trials and releases whose checks failed do not count, and a re-run repeats its entry."""
    champions: list[Record] = []
    released: dict[int, Record] = {}
    waiting: dict[str, Record] = {}
    withdrawn: dict[str, Record] = {}
    for entry in journal.entries():
        if not _is_release(entry) or not _passed(entry):
            continue
        record = entry["record"]
        name = record["release"]
        if record.get("state") == CANDIDATE:
            waiting.pop(name, None)
            waiting[name] = record
            continue
        released[record["number"]] = record
        known = [each["release"] for each in champions]
        place = known.index(name) if name in known else len(known)
        withdrawn |= {each["release"]: each for each in champions[place + 1 :]}
        champions[place:] = [record]
        withdrawn.pop(name, None)
        waiting = {other: each for other, each in waiting.items() if each["number"] > record["number"]}
    return Standing(tuple(champions), tuple(released[number] for number in sorted(released)), waiting, withdrawn)


def releases(journal: Journal) -> list[Record]:
    """Every release that was champion, each once, oldest first."""
    return list(standing(journal).released)


def champion(journal: Journal) -> Record | None:
    """The release in force, which the endpoint asks for."""
    return standing(journal).champion


def previous(journal: Journal) -> Record | None:
    """The release before the champion: what a rollback returns to."""
    return standing(journal).previous


def next_number(journal: Journal) -> int:
    """The number of the release to come; one whose checks failed keeps its number to itself."""
    return 1 + max((entry["record"]["number"] for entry in journal.entries() if _is_release(entry)), default=0)


def verify_files(release: str, directory: Path, files: Mapping[str, str]) -> None:
    """Compare each served file with the SHA-256 it was released with. Raises ``ReleaseError`` naming the file."""
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            raise ReleaseError(f"{release}: {path} is missing; materialize quantized_model and release again")
        if sha256_file(path) != expected:
            raise ReleaseError(
                f"{release}: {path} is not the file that was released (its SHA-256 differs); "
                "run `llm-assets verify --discard` and materialize quantized_model again"
            )


def returnable(home: Path, chain: str, to: str = "") -> Record:
    """The release that a rollback to ``to`` returns to, by default the one before the champion, its files compared.

    Raises ``ReleaseError`` with the reason, and with the releases there are.
    """
    known = standing(release_journal(home, chain))
    listed = ", ".join(record["release"] for record in known.released) or "none"
    if to:
        found = next((record for record in known.released if record["release"] == to), None)
        if found is None:
            raise ReleaseError(f"{chain} has no release {to} to go back to; there are: {listed}")
    else:
        found = known.previous
        if found is None:
            raise ReleaseError(f"{chain} has no release before its champion to go back to; there are: {listed}")
    verify_files(found["release"], home / found["directory"], found["files"])
    return found


def roll_back(home: Path, chain: str, to: str, *, by: str, note: str, only_from: str = "") -> Record | None:
    """Append the entry that makes a release the champion again, to the journal and the ledger; returns its record.

    None, and no entry, where it is the champion already, was never released, or ``only_from`` is no longer the champion.
    """
    journal = release_journal(home, chain)
    with journal.turn():
        known = standing(journal)
        target = next((record for record in known.released if record["release"] == to), None)
        newest = known.champion
        if target is None or newest is None or newest["release"] == to or (only_from and newest["release"] != only_from):
            return None
        names = [each["release"] for each in known.champions]
        before = (names[: names.index(to)] if to in names else names)[-1:]
        aliases = {**known.aliases, "champion": to, "previous": before[0] if before else None}
        if known.candidate is None:
            aliases["candidate"] = to
        record = {
            **target,
            "state": CHAMPION,
            "previous": aliases["previous"],
            "aliases": aliases,
            "approved_by": by,
            "note": note,
            "rolled_back_from": newest["release"],
        }
        entry = journal.append(
            {
                "run_id": None,
                "trial": False,
                "data_version": to,
                "inputs": {"quantized_model": target["quantized_model"]},
                "verdicts": [],
                "record": record,
            }
        )
    Ledger(home).append("acted", "release", entry["at"], chain=chain, entry=entry_hash(entry))
    return record


def _is_release(entry: Entry) -> bool:
    return not entry.get("trial")


def _passed(entry: Entry) -> bool:
    return all(verdict["passed"] for verdict in entry.get("verdicts") or () if verdict["blocking"])
