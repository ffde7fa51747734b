from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from llm_assets.corpus.archives import SourceError
from llm_assets.links.making import Outcome
from llm_assets.links.raw_corpus import RawCorpusConfig, observe_sources
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import SECTIONS, artifact, documents, judge, run
from llm_assets_tests.corpus.site import Site, feed


def test_every_occurrence_has_its_origin(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["raw_corpus"]
    table = outcome.artifact.table("documents.parquet")
    metrics = outcome.artifact.metrics
    assert all(verdict.passed for verdict in outcome.verdicts)
    assert metrics["documents"] == len(table) > metrics["distinct_documents"] > 500  # nearly every review stands twice
    assert set(table["source"].to_pylist()) == {"positive", "negative", "news"}
    assert set(metrics["labels"]) == {"positive", "negative"}
    assert outcome.artifact.manifest.licenses == ["MIT"]
    assert not any("/n" in text for text in table.filter(pa.compute.equal(table["source"], "news"))["text"].to_pylist())


def test_a_changed_source_is_another_recipe_and_a_vanished_one_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("这是第一篇文章\n", encoding="utf-8")
    section = {"sources": [{"kind": "files", "name": "mine", "path": str(path), "license": "CC0-1.0", "language": "zh"}]}
    store = Store(tmp_path / "home")
    first = run(store, "raw_corpus", section, {})
    assert run(store, "raw_corpus", section, {}).reused
    path.write_text("这是第二篇文章\n", encoding="utf-8")
    assert run(store, "raw_corpus", section, {}).artifact.fingerprint != first.artifact.fingerprint
    path.unlink()
    with pytest.raises(SourceError, match="source mine: no file matches"):
        run(store, "raw_corpus", section, {})


def test_ignored_files_of_an_inbox_are_counted_anew(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("这是第一篇文章\n", encoding="utf-8")
    section = {"sources": [{"kind": "files", "name": "inbox", "path": str(tmp_path / "*.*"), "license": "CC0-1.0", "required": False}]}
    store = Store(tmp_path / "home")
    assert run(store, "raw_corpus", section, {}).artifact.metrics["ignored_files"] == 0
    (tmp_path / "notes.md").write_text("无")
    assert run(store, "raw_corpus", section, {}).artifact.metrics["ignored_files"] == 1


def test_pages_of_the_web_become_documents_and_change_the_recipe(site: Site, tmp_path: Path) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /private", "text/plain")
    pages = [site.put("/a.txt", "这是第一篇文章"), site.put("/b.txt", "这是第二篇文章"), site.url("/private"), site.url("/gone")]
    news = site.put("/feed", feed(*pages), "application/rss+xml")
    asked = {"kind": "http", "name": "blog", "feeds": [news], "license": "CC0-1.0", "language": "zh", "delay": 0, "refresh_hours": 0}
    store = Store(tmp_path / "home")
    first = run(store, "raw_corpus", {"sources": [asked]}, {})
    assert all(verdict.passed for verdict in first.verdicts)
    table = first.artifact.table("documents.parquet")
    assert list(zip(table["member"].to_pylist(), table["text"].to_pylist(), strict=True)) == [
        (pages[0], "这是第一篇文章"),
        (pages[1], "这是第二篇文章"),
    ]
    assert first.artifact.metrics["passed_over_pages"] == {"blog": {"forbidden": 1, "gone": 1}}
    assert run(store, "raw_corpus", {"sources": [asked]}, {}).reused
    site.put("/b.txt", "这是第三篇文章")
    second = run(store, "raw_corpus", {"sources": [asked]}, {})
    assert not second.reused and second.artifact.table("documents.parquet")["text"].to_pylist()[1] == "这是第三篇文章"


def test_an_archive_is_observed_without_the_network() -> None:
    observed = observe_sources(RawCorpusConfig.model_validate(SECTIONS["raw_corpus"]))
    assert observed["news"] == {"version": "0.12.3", "sha256": SECTIONS["raw_corpus"]["sources"][2]["sha256"]}


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two sources are named mine"):
        RawCorpusConfig.model_validate({"sources": [{"kind": "files", "name": "mine", "path": path, "license": "x"} for path in "ab"]})


def test_checks_fail(tmp_path: Path) -> None:
    table = documents("第一", "第二", source="positive")
    missing = artifact(tmp_path / "a", "raw_corpus", documents__parquet=table)
    verdict = judge("raw_corpus", "sources_present", missing)
    assert not verdict.passed and "negative, news" in verdict.description
    wrong = table.set_column(0, "doc_id", pa.array(["0" * 20, table["doc_id"][1].as_py()]))
    verdict = judge("raw_corpus", "doc_id_is_the_text", artifact(tmp_path / "b", "raw_corpus", documents__parquet=wrong))
    assert not verdict.passed and verdict.values["doc_ids"] == ["0" * 20]
    doubled = pa.concat_tables([table, table])
    assert not judge("raw_corpus", "expectations", artifact(tmp_path / "c", "raw_corpus", documents__parquet=doubled)).passed
    numbered = table.set_column(1, "id", pa.array(["7", "7"]))
    verdict = judge("raw_corpus", "own_ids_unique", artifact(tmp_path / "d", "raw_corpus", documents__parquet=numbered))
    assert not verdict.passed and "positive: 7" in verdict.description
