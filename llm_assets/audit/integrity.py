"""Whether an artifact is what its manifest says, and its manifest what was committed: bytes, recipe, data version, inputs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_assets.audit.lineage import Name
from llm_assets.links.chain import LINKS
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import ArtifactError, Manifest, content_digest
from llm_assets.store.store import Store

SPOILED = ("bytes", "manifest", "place", "recipe", "data_version")  # kinds for which an artifact is of no more use


@dataclass(frozen=True)
class Damage:
    """One thing that is not as the records say."""

    link: str
    fingerprint: str  # of an act, the time of its journal's entry
    reason: str
    kind: str = "bytes"

    @property
    def is_spoiled(self) -> bool:
        """Whether the artifact itself cannot be relied on any more, and is better made again."""
        return self.kind in SPOILED


def damage_of(store: Store, name: Name) -> Iterator[Damage]:
    """What is wrong with one artifact: an unreadable manifest, files that are not those it names, a manifest that contradicts itself.

    Reads and hashes every byte. Of a remote root every file is fetched anew: a bit that flipped in the cache is no damage of the root,
    and is mended.
    """
    try:
        manifest = store.read_manifest(*name)
    except ArtifactError as error:
        yield Damage(*name, str(error), "manifest")
        return
    if manifest is None:
        return
    try:
        store.open(*name, refetch=True).verify()
    except ArtifactError as error:
        yield Damage(*name, str(error), "bytes")
    yield from _contradictions(name, manifest)


def _contradictions(name: Name, manifest: Manifest) -> Iterator[Damage]:
    """Where a manifest does not follow from itself, as one that was edited by hand."""
    shown = " ".join(name)
    if (manifest.link, manifest.fingerprint) != name:
        yield Damage(*name, f"{shown}: its manifest is that of {manifest.link} {manifest.fingerprint}; one was put in place of the other", "place")
        return
    try:
        recomputed = Recipe(**manifest.recipe).fingerprint
    except (TypeError, ValueError) as error:
        yield Damage(*name, f"{shown}: its manifest holds no whole recipe ({error})", "recipe")
        return
    if recomputed != manifest.fingerprint:
        yield Damage(*name, f"{shown}: the recipe in its manifest makes {recomputed}; the manifest was changed by hand", "recipe")
    is_trained = LINKS[manifest.link].trained if manifest.link in LINKS else manifest.data_version == manifest.fingerprint
    version = manifest.fingerprint if is_trained else content_digest(manifest.files)
    if version != manifest.data_version:
        yield Damage(*name, f"{shown}: its manifest states data version {manifest.data_version}, its files make {version}", "data_version")
    for key, entry in manifest.inputs.items():
        asked = manifest.recipe["inputs"].get(key)  # an artifact that the config names stands in the config alone
        if asked is not None and asked != entry.data_version:
            yield Damage(*name, f"{shown}: its recipe asks for {key} {asked}, its manifest names {entry.fingerprint} {entry.data_version}", "recipe")


def quarantine(store: Store, damage: Damage) -> Path:
    """Move a damaged artifact out of the store, to ``quarantine/<link>-<fingerprint>/`` in the data root, and return that folder."""
    target = store.home / "quarantine" / f"{damage.link}-{damage.fingerprint}"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.lock(damage.fingerprint):
        store.filesystem.get(f"{store.root}/{damage.link}/{damage.fingerprint}/", str(target), recursive=True)
        store.remove(damage.link, damage.fingerprint, f"damaged, moved to {target.relative_to(store.home)}: {damage.reason}")
    return target
