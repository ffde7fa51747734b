"""What it cost to make something, with everything it stands on."""

from __future__ import annotations

from collections.abc import Iterable

from llm_assets.audit.lineage import Name, ancestors, manifests_by_name
from llm_assets.store.store import Store


def seconds_to_make(store: Store, roots: Iterable[Name]) -> float:
    """Wall-clock seconds that the artifacts ``roots`` (link, fingerprint) and all upstream of them took, each counted once."""
    manifests = manifests_by_name(store)
    return sum(manifests[name].seconds for name in ancestors(manifests, roots) if name in manifests)
