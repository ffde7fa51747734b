"""Documents that must not come back: salted hashes of their doc_ids, which reading leaves out from then on."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.journal import now


@dataclass(frozen=True)
class Tombstones:
    """The erased documents of a data root, in ``<home>/tombstones.json``; the file names none of them."""

    path: Path
    salt: str
    erased: Mapping[str, Mapping[str, str]]  # hash -> when and why

    @classmethod
    def of(cls, home: Path) -> Tombstones:
        """Those of a data root. Raises ``ValueError`` naming a damaged file: without it an erased document would come back."""
        path = home / "tombstones.json"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, value["salt"], value["erased"])
        except FileNotFoundError:
            return cls(path, secrets.token_hex(16), {})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): restore it from a backup, or an erased document would come back") from error

    @property
    def state(self) -> str | None:
        """What changes when another document is erased; None while none is."""
        return digest(sorted(self.erased))[:24] if self.erased else None

    def hash(self, doc_id: str) -> str:
        """The salted hash under which a document is known here."""
        return hashlib.sha256(f"{self.salt}:{doc_id}".encode()).hexdigest()

    def standing(self, doc_ids: Iterable[str | None]) -> list[bool]:
        """Of each document whether it may be read."""
        return [doc_id is None or self.hash(doc_id) not in self.erased for doc_id in doc_ids]

    def add(self, reason: str, *doc_ids: str) -> Tombstones:
        """Set more; returns the new state, which stands on the disk. One that stands already keeps its time and reason."""
        erased = {**{self.hash(doc_id): {"at": now(), "reason": reason} for doc_id in doc_ids}, **self.erased}
        write_json(self.path, {"salt": self.salt, "erased": erased})
        return Tombstones(self.path, self.salt, erased)
