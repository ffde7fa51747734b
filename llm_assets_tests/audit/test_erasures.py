from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.audit.erasures import elsewhere, erasure
from llm_assets.audit.forget import ForgetError, erase
from llm_assets.audit.index import Index
from llm_assets.audit.trace import UnknownDocumentError
from llm_assets.corpus.documents import doc_id
from llm_assets.store.store import Store
from llm_assets.tracking.tracker import Tracker

from .material import KEPT, OTHER, REPEATED, copied_chain


@pytest.fixture
def full(store: Store, index: Index) -> Index:
    copied_chain(store)
    index.refresh()
    return index


def test_a_document_is_named_by_its_id_its_text_or_a_phrase(full: Index) -> None:
    for asked in (erasure([full], doc_id(OTHER)[:8]), erasure([full], text=OTHER)):
        assert [plan.documents for plan in asked.plans] == [[doc_id(OTHER)]] and asked.matched == []
    asked = erasure([full], phrase="酒店的早餐")
    assert {one for plan in asked.plans for one in plan.documents} == {doc_id(KEPT), doc_id(REPEATED)} and len(asked.matched) == 1
    assert erasure([full], phrase="nobody wrote this").plans == []
    with pytest.raises(ForgetError, match="2 documents hold this text"):
        erasure([full], text="早餐非常好吃")


def test_an_erased_document_is_named_by_its_text_alone(full: Index) -> None:
    with pytest.raises(UnknownDocumentError, match="no raw corpus"):
        erasure([full], "0" * 20)
    erase(erasure([full], doc_id(OTHER)).plans, "asked to")
    full.refresh()
    with pytest.raises(ForgetError, match=r"was erased; what holds it again is found by its text alone: llm-assets forget --text"):
        erasure([full], doc_id(OTHER))
    assert [plan.texts for plan in erasure([full], text=OTHER).plans] == [1]


def test_what_is_elsewhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    trackers = [Tracker(home), Tracker(home, "http://user:secret@mlflow.test"), Tracker(home, f"sqlite:///{tmp_path}/home-old/other.db")]
    monkeypatch.setenv("LLM_ASSETS_DAGSTER", str(home / "dagster"))
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        said = elsewhere(home, instance, trackers)
        assert len(said) == 2 and "mlflow.test" in said[0] and "secret" not in said[0] and "not below the data root" in said[1]
        monkeypatch.setenv("LLM_ASSETS_DAGSTER", str(tmp_path))
        assert "Dagster's event log" in elsewhere(home, instance, trackers)[2]
