"""Whether the store's bytes are what its manifests say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store


@dataclass(frozen=True)
class Damage:
    """One artifact that is not what its manifest says."""

    link: str
    fingerprint: str
    reason: str


def damaged_artifacts(store: Store) -> Iterator[Damage]:
    """Every artifact with a missing or changed file or an unreadable manifest; reads and hashes every byte.

    Of a remote root every file is fetched anew: a bit that flipped in the cache is no damage of the root, and is mended.
    """
    for link, fingerprint in store.names():
        try:
            store.open(link, fingerprint, refetch=True).verify()
        except ArtifactError as error:
            yield Damage(link, fingerprint, str(error))


def quarantine(store: Store, damage: Damage) -> Path:
    """Move a damaged artifact out of the store, to ``quarantine/<link>-<fingerprint>/`` in the data root, and return that folder."""
    target = store.home / "quarantine" / f"{damage.link}-{damage.fingerprint}"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.lock(damage.fingerprint):
        store.filesystem.get(f"{store.root}/{damage.link}/{damage.fingerprint}/", str(target), recursive=True)
        store.remove(damage.link, damage.fingerprint, f"damaged, moved to {target.relative_to(store.home)}: {damage.reason}")
    return target
