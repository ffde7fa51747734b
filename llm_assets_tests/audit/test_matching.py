from __future__ import annotations

import pytest

from llm_assets.audit.forget import ForgetError
from llm_assets.audit.index import Index
from llm_assets.audit.matching import matching
from llm_assets.corpus.batches import batch_folder, write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.operation import traffic
from llm_assets.serving.request_log import log_folder
from llm_assets.store.store import Store
from llm_assets_tests.operation.traffic import line, vote, write_log

from .material import raw_corpus

PHRASE = "Zhang 伟明"


@pytest.fixture
def holding(store: Store, index: Index) -> Index:
    """A corpus and records, in which the phrase stands in several spellings."""
    raw_corpus(store, "请找ＺＨＡＮＧ　伟明先生", "zhang  伟明 & 13800138000", "张伟明", "Zhang 伟")
    write_log(store.home, [line(1, "I know zhang 伟明", "nobody"), line(2, "请找ＺＨＡＮＧ　伟明先生")])
    traffic.write_day(log_folder(store.home) / "tiny" / "2026-11-20.jsonl", traffic.traffic_path(store.home, "tiny", "2026-11-20"))
    write_log(store.home, [vote(1, comment="Zhang\u200b 伟明 wrote this"), vote(2, comment=None)], kind="feedback")
    row = {"doc_id": "d", "id": "a", "index": 0, "at": "2026", "text": "by Zhang 伟明", "label": "good", "votes": 1, "provenance": "feedback"}
    write_batch(batch_folder(store.home, "tiny"), [row])
    index.refresh()
    return index


def test_a_phrase_is_found_in_documents_and_records_whatever_its_spelling(holding: Index) -> None:
    found = matching(holding, PHRASE)
    assert set(found.documents) == {doc_id("请找ＺＨＡＮＧ　伟明先生"), doc_id("zhang  伟明 & 13800138000")}
    assert found.records == ["I know zhang 伟明", "Zhang\u200b 伟明 wrote this", "by Zhang 伟明"]  # a document's own text is not one more


def test_samples_are_masked_and_short(holding: Index) -> None:
    samples = list(matching(holding, PHRASE).samples(3))
    assert len(samples) == 3 and all(len(sample) <= 61 for sample in samples)
    assert any("[PHONE]" in sample for sample in samples) and not any("13800138000" in sample for sample in samples)


def test_nothing_holds_it(holding: Index) -> None:
    found = matching(holding, "nobody has this")
    assert (found.documents, found.records, list(found.samples(5))) == ({}, [], [])


@pytest.mark.parametrize("phrase", ["", " ", "\u200b", "好"])
def test_a_phrase_that_says_nothing_is_refused(store: Store, index: Index, phrase: str) -> None:
    with pytest.raises(ForgetError, match="too short to say what is meant"):
        matching(index, phrase)
