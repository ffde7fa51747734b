"""What it cost to make something, with everything it stands on."""

from __future__ import annotations

from collections.abc import Iterable

from llm_assets.store.manifest import InputEntry, Manifest
from llm_assets.store.store import Store


def seconds_to_make(store: Store, roots: Iterable[tuple[str, str]]) -> float:
    """Wall-clock seconds that the artifacts ``roots`` (link, fingerprint) and all upstream of them took, each counted once."""
    manifests = {(manifest.link, manifest.fingerprint): manifest for manifest in store.manifests()}
    counted: dict[tuple[str, str], Manifest] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in counted or name not in manifests:
            continue
        counted[name] = manifests[name]
        waiting += [_name(entry) for entry in manifests[name].inputs.values()]
    return sum(manifest.seconds for manifest in counted.values())


def _name(entry: InputEntry) -> tuple[str, str]:
    return entry.link, entry.fingerprint
