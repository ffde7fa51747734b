"""What learned from texts that came out of service: models, and the releases that stand on them."""

from __future__ import annotations

from collections.abc import Iterable

from llm_assets.audit.index import Index, Row
from llm_assets.audit.trace import Served, served
from llm_assets.links.chain import LINKS

PREFERENCES = "aligned_model"  # keeps of what it read marks alone, so that no search finds a text in it


def taught_by(index: Index, batches: Iterable[str]) -> list[Served]:
    """The releases that learned from any of these batches, by labels, replies or preferences; of a batch the share may have left rows out."""
    names = set(batches)
    read = [row for link in ("labelled_examples", PREFERENCES) for row in _readers(index, link, names)]
    return served(index, [fingerprint for link, fingerprint in _below(index, read) if link == "quantized_model"])


def learners(index: Index, examples: Iterable[Row], batches: Iterable[str]) -> list[Row]:
    """The trained models that stand on ``examples``, or on preferences of any of these batches."""
    below = _below(index, [*examples, *_readers(index, PREFERENCES, set(batches))])
    return [row for row in below.values() if row.link in LINKS and LINKS[row.link].trained]


def _readers(index: Index, link: str, batches: set[str]) -> list[Row]:
    return [
        row
        for row in index.artifacts(link)
        if (manifest := index.store.read_manifest(*row.name)) and batches & manifest.recipe.get("observed", {}).get("feedback", {}).keys()
    ]


def _below(index: Index, rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """Artifacts, and all that was made from them."""
    roots = {row.name: row for row in rows}
    return roots | index.descendants(roots)
