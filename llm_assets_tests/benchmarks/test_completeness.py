"""What the benchmark `completeness` counts as an answer that leads to its documents' sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.completeness import leads_to_sources
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, trace_back
from llm_assets.store.store import Store
from llm_assets_tests.audit.conftest import answer, release
from llm_assets_tests.audit.material import copied_chain


def lineage_of(store: Store, wanted: str) -> Lineage:
    index = Index(store)
    index.refresh()
    found = trace_back(find([index], wanted), wanted)
    index.close()
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    release(store, copied_chain(store)["quantized_model"])
    answer(store, "reviews-1", "classify-1")
    return store


def test_an_answer_counts_when_its_lineage_ends_in_sources(store: Store) -> None:
    assert leads_to_sources(lineage_of(store, "classify-1"), "reviews-1")


def test_an_answer_of_another_release_than_was_told_does_not_count(store: Store) -> None:
    assert not leads_to_sources(lineage_of(store, "classify-1"), "reviews-2")


def test_a_lineage_that_breaks_does_not_count(store: Store) -> None:
    (tokens,) = store.names("tokens")
    (Path(store.root) / "/".join(tokens) / "manifest.json").unlink()
    assert not leads_to_sources(lineage_of(store, "classify-1"), "reviews-1")


def test_a_document_that_no_source_accounts_for_does_not_count(store: Store) -> None:
    found = lineage_of(store, "classify-1")
    (corpus,) = [node for node in found.nodes.values() if node.link == "raw_corpus"]
    known = corpus.sources[0]
    for changed in ([], [replace(known, documents=known.documents - 1)], [replace(known, hash=None)], [replace(known, license="")]):
        corpus.sources[:] = changed
        assert not leads_to_sources(found, "reviews-1"), changed
    corpus.sources[:] = [known]
    assert leads_to_sources(found, "reviews-1")
