from __future__ import annotations

import json

import pytest

from llm_assets.audit.diff import Diff, diff
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import trace_back
from llm_assets.audit.words.diff import diff_tree
from llm_assets.corpus.documents import doc_id
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.terminal.drawn import drawn

from .conftest import release
from .material import KEPT, TESTED, TEXTS, chain, copied_chain

NEW = "快递很快，包装也很仔细，客服的态度非常好，值得推荐给大家"


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    """Two releases: the second has another document, other weights, and another answer."""
    first = copied_chain(store)
    second = chain(store, tuple(NEW if text == KEPT else text for text in TEXTS), b"other weights", {"quantized": "bad"})
    release(store, first["quantized_model"], 1, metrics={"test_accuracy": 0.9, "test_accuracy_interval": [0.8, 0.95], "p50_ms": 1.0})
    release(store, second["quantized_model"], 2, metrics={"test_accuracy": 0.8, "test_accuracy_interval": [0.7, 0.85], "p50_ms": 2.0})
    return second


def diff_of(index: Index, one: str, two: str) -> Diff:
    index.refresh()
    first, second = ((index, trace_back(find([index], wanted), wanted)) for wanted in (one, two))
    return diff(first, second)


def test_two_releases_differ_in_rows_rules_figures_and_answers(made: dict[str, Artifact], index: Index) -> None:
    found = diff_of(index, "reviews-1", "reviews-2")
    rows = {change.link: change for change in found.rows}
    assert (rows["raw_corpus"].added_samples, rows["raw_corpus"].gone_samples) == ([doc_id(NEW)], [doc_id(KEPT)])
    assert rows["clean_corpus"].added == 2 and "evaluation_sets" not in rows  # the repeated one has nothing to repeat now
    assert [(rule.rule, rule.before, rule.after) for rule in found.rules if rule.rule == "duplicate"] == [("duplicate", 2, 1)]
    figures = {figure.name: figure for figure in found.figures}
    assert (figures["test_accuracy"].before, figures["test_accuracy"].after) == (0.9, 0.8)
    assert figures["test_accuracy"].after_interval == [0.7, 0.85] and "p50_ms" not in figures
    assert found.behaviour and (found.behaviour.documents, found.behaviour.changed, found.behaviour.spoiled, found.behaviour.mended) == (1, 1, 1, 0)
    assert found.behaviour.samples == [{"doc_id": doc_id(TESTED), "label": "good", "before": "good", "after": "bad"}]
    assert json.dumps(found.as_json())
    text = drawn(diff_tree(found))
    assert "raw_corpus: 5 -> 5; 1 came, 1 went" in text and "test_accuracy: 0.9 (0.800, 0.950) -> 0.8 (0.700, 0.850)" in text
    assert "1 of 1 test documents: 0 mended, 1 spoiled" in text


def test_the_same_differs_in_nothing(made: dict[str, Artifact], index: Index) -> None:
    found = diff_of(index, "reviews-1", "reviews-1")
    assert not (found.rows or found.rules or found.figures or found.sources) and found.behaviour and found.behaviour.changed == 0
    assert all(change.before == change.after for change in found.links)
    assert "sources: no change" in drawn(diff_tree(found))


def test_config_code_libraries_and_sources_are_named(store: Store, index: Index) -> None:
    from .material import SOURCE, commit

    one = commit(store, "raw_corpus", {"documents.parquet": b""}, config={"sources": [SOURCE]}, code={"hash": "a", "commit": "c1"})
    sources = [{**SOURCE, "sha256": "d" * 64}, {**SOURCE, "name": "more", "license": "CC0-1.0"}]
    changes = {"code": {"hash": "b", "commit": "c2"}, "libraries": {"python": "3.12"}, "metrics": {"sources": {"more": 1000}}}
    two = commit(store, "raw_corpus", {"documents.parquet": b""}, config={"sources": sources}, **changes)
    found = diff_of(index, one.fingerprint, two.fingerprint)
    assert found.sources == [f"test: hash {'c' * 64} -> {'d' * 64}", "more: added (CC0-1.0; 1,000 documents)"]
    (change,) = found.links
    assert {"code: a -> b", "commit: c1 -> c2", "python: 3.11 -> 3.12", "the content is the same"} <= set(change.changes)
    assert f"config.sources.0.sha256: {'c' * 64} -> {'d' * 64}" in change.changes


def test_what_is_gone_is_said_not_to_be_compared(made: dict[str, Artifact], store: Store, index: Index) -> None:
    store.remove("clean_corpus", made["clean_corpus"].fingerprint, "gc")
    found = diff_of(index, "reviews-1", "reviews-2")
    assert found.notes == [f"clean_corpus: {made['clean_corpus'].fingerprint} is removed, so its rows and answers were not compared"]
    assert "clean_corpus" not in {change.link for change in found.rows}
