"""What became of documents, over the real slice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.audit.documents import Corpus, UnknownRuleError, dropped, rejected, search
from llm_assets.corpus.documents import reject_schema
from llm_assets.links.making import Outcome
from llm_assets.store.store import Store
from llm_assets.terminal.documents import corpus_markdown
from llm_assets_tests.corpus.material import artifact, documents, run
from llm_assets_tests.links.test_clean_corpus import evaluation
from llm_assets_tests.running import llm_assets, succeed


@pytest.fixture(scope="module")
def real(corpus: dict[str, Outcome]) -> Corpus:
    return Corpus(*(corpus[name].artifact for name in ("raw_corpus", "screened_corpus", "evaluation_sets", "clean_corpus")))


def test_every_document_read_is_kept_or_counted_under_a_rule(real: Corpus) -> None:
    counts = dropped(real)
    assert real.raw_corpus.metrics["documents"] == real.clean_corpus.metrics["kept"] + sum(row["documents"] for row in counts)
    assert {row["rule"] for row in counts} >= {"duplicate", "evaluation"}


def test_a_rules_documents_are_shown_by_doc_id(real: Corpus) -> None:
    rows = rejected(real, "duplicate", 5)
    assert len(rows) == 5 and [row["doc_id"] for row in rows] == sorted(row["doc_id"] for row in rows)
    assert {row["link"] for row in rows} == {"clean_corpus"}
    with pytest.raises(UnknownRuleError, match=r"no rule 'dupes' dropped anything here; these did: .*duplicate"):
        rejected(real, "dupes", 5)


def test_a_text_is_found_with_its_fate_and_masked(tmp_path: Path) -> None:
    texts = ("电话13800138000的酒店不错", "电话13800138000的酒店不错!", "酒店", "这家酒店的早餐好吃")
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=documents(*texts), rejects__parquet=reject_schema().empty_table())
    store = Store(tmp_path / "home")
    screened = run(store, "screened_corpus", {"minimum_kept": 0.0}, {"raw_corpus": raw}).artifact
    sets = evaluation(tmp_path / "sets", texts[3])
    clean = run(store, "clean_corpus", {"minimum_kept": 1}, {"screened_corpus": screened, "evaluation_sets": sets}).artifact
    corpus = Corpus(raw, screened, sets, clean)
    fates = search(corpus, "酒店", 10)
    assert [(fate.state, fate.rule) for fate in fates] == [
        ("kept", None),
        ("dropped", "duplicate"),
        ("dropped", "too_short"),
        ("evaluation", "evaluation"),
    ]
    assert fates[0].snippet == "电话[PHONE]的酒店不错" and "13800138000" not in str(fates)
    assert [fate.line for fate in search(corpus, "酒店", 10, "too_short")] == [3]
    assert "[PHONE]" in search(corpus, "13800138000", 1)[0].snippet and not search(corpus, "没有的话", 10)


def numbers(line: str) -> list[int]:
    return [int(cell.strip(" *").replace(",", "")) for cell in line.split("|")[2:-1]]


def test_the_markdown_adds_up(real: Corpus) -> None:
    lines = corpus_markdown("reviews", real).splitlines()
    read = next(line for line in lines if line.startswith("| read"))
    kept = next(line for line in lines if line.startswith("| **kept**"))
    numbers = [
        [int(cell.strip(" *").replace(",", "")) for cell in line.split("|")[2:-1]]
        for line in lines
        if line.startswith("| ") and ":" in line.split("|")[1]
    ]
    total = [int(cell.strip(" *").replace(",", "")) for cell in read.split("|")[2:-1]]
    left = [int(cell.strip(" *").replace(",", "")) for cell in kept.split("|")[2:-1]]
    assert [sum(column) for column in zip(left, *numbers, strict=True)] == total


def test_the_command_answers(tiny_chain: Path) -> None:
    counts = json.loads(succeed(tiny_chain, "docs", "reviews", "--json"))
    assert sum(row["documents"] for row in counts if row["rule"] == "duplicate") > 100
    assert "duplicate" in succeed(tiny_chain, "docs", "reviews", "--rule", "duplicate", "--limit", "2", COLUMNS="200")
    assert "clean_corpus: " in succeed(tiny_chain, "docs", "reviews", "--search", "酒店", COLUMNS="200")
    wrong = llm_assets(tiny_chain, "docs", "reviews", "--rule", "nonsense")
    assert wrong.returncode == 1 and "these did" in wrong.stderr
