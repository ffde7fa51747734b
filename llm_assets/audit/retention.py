"""What may be deleted: artifacts that no release, no chain's present settings and no trial of late stands on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_assets.serving.releases import champion, previous
from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store

Name = tuple[str, str]  # link, fingerprint


@dataclass(frozen=True)
class Garbage:
    """What `llm-assets gc` would delete, and what it keeps for which reason."""

    artifacts: list[Manifest]
    work: list[Path]
    kept: dict[Name, str]

    @property
    def size(self) -> int:
        """Bytes that deleting the artifacts frees."""
        return sum(manifest.size for manifest in self.artifacts)


def find_garbage(store: Store, current: Mapping[str, Mapping[str, str]], keep_days: float) -> Garbage:
    """``current`` maps chain to what its settings would reuse now (link to fingerprint).

    Kept: what a champion or previous release stands on, with everything upstream; what a chain would reuse;
    what was made in the last ``keep_days`` days; work that a process holds a lock on.
    """
    manifests = {(manifest.link, manifest.fingerprint): manifest for manifest in store.manifests()}
    kept: dict[Name, str] = {}
    for chain, fingerprints in current.items():
        journal = store.journal(chain, "release")
        for title, release in (("champion", champion(journal)), ("previous", previous(journal))):
            if release is not None:
                _keep(manifests, [("quantized_model", str(release["quantized_model"]))], f"{title} release of {chain}", kept)
        _keep(manifests, fingerprints.items(), f"settings of {chain}", kept)
    youngest = time.time() - keep_days * 86400
    for name, manifest in manifests.items():
        if _made_at(manifest) >= youngest:
            kept.setdefault(name, f"made in the last {keep_days:g} days")
    work = [path for path in (store.home / "work").glob("*") if _is_abandoned(store, path, youngest)]
    return Garbage([manifest for name, manifest in manifests.items() if name not in kept], work, kept)


def collect(store: Store, garbage: Garbage) -> None:
    """Delete what ``find_garbage`` found; each artifact's manifest goes first."""
    for manifest in garbage.artifacts:
        with store.lock(manifest.fingerprint):
            store.remove(manifest.link, manifest.fingerprint)
    for path in garbage.work:
        shutil.rmtree(path, ignore_errors=True)


def _keep(manifests: Mapping[Name, Manifest], roots: Iterable[Name], reason: str, kept: dict[Name, str]) -> None:
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in kept or name not in manifests:
            continue
        kept[name] = reason
        waiting += [(entry.link, entry.fingerprint) for entry in manifests[name].inputs.values()]


def _made_at(manifest: Manifest) -> float:
    from datetime import datetime

    return datetime.fromisoformat(manifest.started).timestamp() + manifest.seconds


def _is_abandoned(store: Store, path: Path, youngest: float) -> bool:
    is_work = (path / "recipe.json").is_file()
    return is_work and path.stat().st_mtime < youngest and not store.is_being_made(path.name)
