"""What artifacts were made from: the way up through their manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store

Name = tuple[str, str]  # link, fingerprint


def manifests_by_name(store: Store) -> dict[Name, Manifest]:
    """Every readable manifest of a store."""
    return {(manifest.link, manifest.fingerprint): manifest for manifest in store.manifests()}


def ancestors(manifests: Mapping[Name, Manifest], roots: Iterable[Name]) -> set[Name]:
    """``roots`` and all that they were made from, however deep; what has no manifest there is named and not followed."""
    found: set[Name] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in manifests:
            waiting += [(entry.link, entry.fingerprint) for entry in manifests[name].inputs.values()]
    return found
