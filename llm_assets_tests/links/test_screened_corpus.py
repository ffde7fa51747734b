from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.documents import doc_id, reject_schema
from llm_assets.links.making import Outcome
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import SECTIONS, altered, artifact, documents, judge, run

PHONE = "13800138000"
TEXTS = (f"服务员说有事打{PHONE}找他就行", "差", f"差 {PHONE} :-( <br/>~~~~~~~~~~~~~~~~~~~~~~~~~~", "位置很好<br />早餐不错")
KEEP_ANY = {**SECTIONS["screened_corpus"], "minimum_kept": 0.0}


def test_texts_are_normalised_and_masked_and_the_rest_dropped_with_a_reason(tmp_path: Path) -> None:
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=documents(*TEXTS))
    outcome = run(Store(tmp_path / "home"), "screened_corpus", KEEP_ANY, {"raw_corpus": raw})
    screened = outcome.artifact
    assert screened.table("documents.parquet")["text"].to_pylist() == ["服务员说有事打[PHONE]找他就行", "位置很好\n早餐不错"]
    assert screened.table("documents.parquet")["doc_id"].to_pylist() == [doc_id(TEXTS[0]), doc_id(TEXTS[3])]
    rejected = screened.table("rejects.parquet")
    assert rejected.schema == reject_schema()
    reasons = [(row["doc_id"], row["rule"], row["start"]) for row in rejected.to_pylist()]
    assert reasons == [(doc_id(TEXTS[1]), "too_short", 0), (doc_id(TEXTS[2]), "wrong_script", 0)]
    masks = screened.table("masks.parquet").to_pylist()
    assert masks[0] == {"doc_id": doc_id(TEXTS[0]), "rule": "phone", "start": 7, "end": 18} and len(masks) == 2
    assert screened.json("counters.json")["masked"]["phone"] == 2
    stored = b"".join(path.read_bytes() for path in screened.directory.rglob("*") if path.is_file())
    assert PHONE.encode() not in stored and PHONE not in json.dumps(screened.manifest.model_dump(mode="json"))
    assert all(verdict.passed for verdict in outcome.verdicts)


def test_the_real_slice_keeps_most(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["screened_corpus"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    assert 0.9 < outcome.artifact.metrics["kept"] / outcome.artifact.metrics["read"] < 1


def test_a_language_without_rules_is_named(tmp_path: Path) -> None:
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=documents("Un bon hôtel.", language="fr"))
    with pytest.raises(SourceError, match=r"add languages\.fr"):
        run(Store(tmp_path / "home"), "screened_corpus", KEEP_ANY, {"raw_corpus": raw})


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    raw, screened = corpus["raw_corpus"].artifact, corpus["screened_corpus"].artifact
    table = screened.table("documents.parquet")
    few = altered(screened, tmp_path / "few", "screened_corpus", documents__parquet=table.slice(0, 10))
    assert not judge("screened_corpus", "enough_kept", few, raw_corpus=raw).passed
    assert not judge("screened_corpus", "nothing_lost", few, raw_corpus=raw).passed
    personal = altered(screened, tmp_path / "personal", "screened_corpus", documents__parquet=documents(f"电话{PHONE}"))
    verdict = judge("screened_corpus", "no_personal_data", personal, raw_corpus=raw)
    assert not verdict.passed and PHONE not in verdict.model_dump_json()
