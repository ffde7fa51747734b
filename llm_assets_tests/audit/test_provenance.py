from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.page import lineage_page, lineage_svg
from llm_assets.audit.provenance import CycleError, Lineage, trace_back
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets.store.manifest import InputEntry
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets.terminal.lineage import lineage_tree
from llm_assets.tracking.record import TRACKING
from llm_assets_tests.terminal.drawn import drawn

from .conftest import answer, break_manifest, commit, release, rewrite

HASH = "c" * 64
SOURCES = [
    {"name": "shop", "kind": "pypi", "license": "MIT", "package": "p", "version": "1", "member": "a.txt", "sha256": HASH},
    {"name": "inbox", "kind": "files", "license": "yours", "path": "inbox/*"},
]


def chain(store: Store) -> tuple[Artifact, Artifact, Artifact]:
    """A raw corpus of two sources, tokens and a model, released and asked."""
    raw = commit(store, "raw_corpus", metrics={"sources": {"shop": 5}}, licenses=["MIT", "yours"], code={"commit": "c0ffee00", "dirty": False})
    rewrite(raw, recipe={**raw.manifest.recipe, "config": {"sources": SOURCES}, "observed": {"inbox": {"files": {"a": {"sha256": "d" * 64}}}}})
    tokens = commit(store, "tokens", raw)
    model = commit(store, "quantized_model", tokens, raw, dagster_run_id="dagster-1")
    store.judge(model, [Verdict(check="small", passed=False, blocking=False, description="9 MB")])
    store.write_sidecar("quantized_model", model.fingerprint, TRACKING, {"run_id": "mlflow-1", "url": "http://m/1"})
    answer(store, release(store, model), "classify-1")
    return raw, tokens, model


def lineage_of(index: Index, wanted: str = "classify-1") -> Lineage:
    index.refresh()
    return trace_back(find([index], wanted), wanted)


def test_an_answer_leads_to_sources_runs_gates_and_approval(store: Store, index: Index) -> None:
    raw, tokens, model = chain(store)
    found = lineage_of(index)
    assert [node.name for node in found.nodes.values()] == [(one.link, one.fingerprint) for one in (raw, tokens, model)]
    assert [(source.name, source.license, source.hash, source.documents) for source in found.sources] == [
        ("shop", "MIT", HASH, 5),
        ("inbox", "yours", "d" * 64, 0),
    ]
    assert found.licenses == ["MIT", "yours"] and not found.breaks
    assert [(gate["link"], gate["check"]) for gate in found.gates] == [("scorecard", "beats_majority")]
    assert found.approved_by == "auto"
    value = json.loads(json.dumps(found.as_json()))
    assert value["complete"] and value["answer"]["id"] == "classify-1" and value["release"]["release"] == "reviews-1"
    last = value["nodes"][-1]
    assert (last["dagster_run_id"], last["mlflow_run"], last["checks"][0]["description"]) == ("dagster-1", "mlflow-1", "9 MB")
    assert last["inputs"]["tokens"]["fingerprint"] == tokens.fingerprint


def test_an_approval_among_the_events_is_who_approved(store: Store, index: Index) -> None:
    chain(store)
    events = Journal(store.home / "serving" / "events" / "reviews.jsonl")
    events.append({"kind": "approval", "release": "reviews-2", "message": "another", "by": "eve"})
    events.append({"kind": "approval", "release": "reviews-1", "message": "approved by ann", "by": "ann"})
    assert lineage_of(index).approved_by == "ann"


def test_what_is_missing_or_cannot_be_read_breaks_it_and_what_was_removed_does_not(store: Store, index: Index) -> None:
    raw, tokens, _ = chain(store)
    store.remove("tokens", tokens.fingerprint, "gc")
    found = lineage_of(index)
    assert found.nodes["tokens", tokens.fingerprint].state == "removed" and not found.breaks
    assert set(found.nodes) >= {("raw_corpus", raw.fingerprint)}
    store.remove("raw_corpus", raw.fingerprint)
    (sentence,) = lineage_of(index).breaks
    assert sentence.startswith(f"raw_corpus {raw.fingerprint} is not in ") and "no record says that it was removed" in sentence


def test_a_cut_off_manifest_is_named(store: Store, index: Index) -> None:
    _, tokens, _ = chain(store)
    break_manifest(tokens)
    (sentence,) = lineage_of(index).breaks
    assert f"tokens {tokens.fingerprint}" in sentence and "manifest.json is damaged" in sentence


def test_a_cycle_is_named(store: Store, index: Index) -> None:
    raw, _, model = chain(store)
    rewrite(raw, inputs={"model": InputEntry(link="quantized_model", fingerprint=model.fingerprint, data_version="x")})
    with pytest.raises(CycleError, match=f"quantized_model {model.fingerprint} <- raw_corpus {raw.fingerprint} <- quantized_model"):
        lineage_of(index)


def test_the_graph_has_a_box_a_node_and_no_box_overlaps(store: Store, index: Index) -> None:
    chain(store)
    found = lineage_of(index)
    root = ElementTree.fromstring(lineage_svg(found))
    shapes = [one for one in root.iter() if one.tag.endswith("rect")]
    boxes = [tuple(float(one.get(key, 0)) for key in ("x", "y", "width", "height")) for one in shapes]
    names = [one.text for one in root.iter() if one.get("class") == "name"]
    assert sorted(map(str, names)) == sorted(["shop", "inbox", "raw_corpus", "tokens", "quantized_model", "reviews-1", "answer"])
    for number, (x, y, width, height) in enumerate(boxes):
        for x2, y2, _, _ in boxes[number + 1 :]:
            assert abs(x - x2) >= width or abs(y - y2) >= height
    assert len([one for one in root.iter() if one.tag.endswith("path")]) == 2 + 3 + 1 + 1
    places = dict(zip(names, boxes, strict=True))
    assert places["raw_corpus"][1] < places["tokens"][1] < places["quantized_model"][1] < places["answer"][1]


def test_the_page_opens_each_node_and_escapes_what_it_shows(store: Store, index: Index) -> None:
    raw, _, _ = chain(store)
    rewrite(raw, licenses=["<script>alert(1)</script>"])
    page = lineage_page(lineage_of(index))
    assert page.count("<details id=") == 3 and "<script" not in page and "&lt;script&gt;" in page
    assert f'id="raw_corpus-{raw.fingerprint}"' in page and f'href="#raw_corpus-{raw.fingerprint}"' in page
    assert "mlflow-1" in page and "beats_majority" in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_tree_shows_each_node_once_and_breaks_in_words(store: Store, index: Index) -> None:
    raw, tokens, _ = chain(store)
    text = drawn(lineage_tree(lineage_of(index)))
    assert text.count(f"raw_corpus {raw.fingerprint[:12]}") == 2 and text.count("(above)") == 1
    assert "beats_majority passed" in text and "approved by auto" in text and "source shop: MIT; p 1: a.txt" in text
    assert "0 of 1 checks passed (small warned: 9 MB)" in text
    break_manifest(tokens)
    assert "not complete: tokens" in drawn(lineage_tree(lineage_of(index)))
