"""Which releases learned from batches of labelled texts that came out of service."""

from __future__ import annotations

from collections.abc import Iterable

from llm_assets.audit.index import Index
from llm_assets.audit.trace import Served, served


def taught_by(index: Index, batches: Iterable[str]) -> list[Served]:
    """The releases whose labelled examples were read from any of these batches; of a batch the share of feedback may have left rows out."""
    names = set(batches)
    read = [
        row.name
        for row in index.artifacts("labelled_examples")
        if (manifest := index.store.read_manifest(*row.name)) and names & manifest.recipe.get("observed", {}).get("feedback", {}).keys()
    ]
    return served(index, [fingerprint for link, fingerprint in index.descendants(read) if link == "quantized_model"])
