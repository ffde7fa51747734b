"""What it cost to make something, with everything it stands on."""

from __future__ import annotations

from collections.abc import Iterable

from llm_assets.audit.lineage import Name, ancestors, manifests_by_name
from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store


def seconds_to_make(store: Store, roots: Iterable[Name]) -> float:
    """Wall-clock seconds that the artifacts ``roots`` (link, fingerprint) and all upstream of them took, each counted once."""
    manifests = manifests_by_name(store)
    return sum(manifests[name].seconds for name in ancestors(manifests, roots) if name in manifests)


def joules_to_make(manifests: Iterable[Manifest]) -> float | None:
    """Energy of the processors that made these; None where one was made on a machine that did not show it."""
    joules = [manifest.energy_joules for manifest in manifests]
    return None if None in joules else sum(filter(None, joules))
