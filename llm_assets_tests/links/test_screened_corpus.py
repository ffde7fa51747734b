from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.documents import doc_id, reject_schema
from llm_assets.corpus.workers import WorkerDiedError
from llm_assets.links import screened_corpus as module
from llm_assets.links.making import Outcome
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import SECTIONS, altered, artifact, documents, judge, run

GOOD = "这家酒店的位置很好"
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
    assert reasons == [(doc_id(TEXTS[1]), "too_short", 0), (doc_id(TEXTS[2]), "too_many_symbols", 0)]
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


def all_contain(texts: pa.Array) -> pa.Array:
    return pc.match_substring(texts, "早餐")


def test_own_rules_and_lists_overrule_with_a_reason(tmp_path: Path) -> None:
    raw = artifact(
        tmp_path / "raw", "raw_corpus", documents__parquet=documents("早餐不错的酒店", "房间不错的酒店", "差", "差评,骗子公司", "早餐也很好吃的")
    )
    section = {
        **KEEP_ANY,
        "own_rules": [{"name": "breakfast", "function": f"{__name__}:all_contain"}],
        "keep": [{"doc_id": doc_id("差"), "reason": "one character says it all"}, {"matching": "^早餐也", "reason": "asked for by the editor"}],
        "drop": [{"matching": "骗子", "reason": "a lawyer's letter of May"}],
    }
    outcome = run(Store(tmp_path / "home"), "screened_corpus", section, {"raw_corpus": raw})
    assert outcome.artifact.table("documents.parquet")["text"].to_pylist() == ["房间不错的酒店", "差", "早餐也很好吃的"]
    rejected = outcome.artifact.table("rejects.parquet").to_pylist()
    assert [(row["rule"], row["evidence"]) for row in rejected] == [("breakfast", "早餐不错的酒店"), ("drop_list", "a lawyer's letter of May")]
    assert outcome.artifact.metrics["kept_by_list"] == 2 and outcome.artifact.metrics["dropped"]["breakfast"] == 1
    assert outcome.artifact.manifest.recipe["observed"]["breakfast"]


def test_an_own_rule_that_is_not_there_or_miscounts_is_named(tmp_path: Path) -> None:
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=documents(GOOD))
    wrong = {"nowhere:rule": "cannot be imported", "builtins:len": "cannot be read", f"{__name__}:none_at_all": "gave 0 verdicts for 1 texts"}
    for function, reason in wrong.items():
        section = {**KEEP_ANY, "own_rules": [{"name": "mine", "function": function}]}
        with pytest.raises(SourceError, match=f"own rule mine: .*{function} {reason}"):
            run(Store(tmp_path / "home"), "screened_corpus", section, {"raw_corpus": raw})


def none_at_all(texts: pa.Array) -> list[bool]:
    return []


def test_a_kind_of_text_has_thresholds_of_its_own(tmp_path: Path) -> None:
    news, review = documents("短新闻标题"), documents("短评论也可以")
    news = news.set_column(news.schema.get_field_index("metadata"), "metadata", pa.array(['{"kind": "news"}']))
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=pa.concat_tables([news, review]))
    section = {"languages": {"zh": {"scripts": ["Han"]}, "zh/news": {"scripts": ["Han"], "minimum_characters": 50}}, "minimum_kept": 0.0}
    screened = run(Store(tmp_path / "home"), "screened_corpus", section, {"raw_corpus": raw}).artifact
    assert screened.table("documents.parquet")["text"].to_pylist() == ["短评论也可以"]


def test_more_processes_make_the_same_artifact(tmp_path: Path, corpus: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARALLEL_FROM", 0)
    monkeypatch.setattr(module, "cores", lambda: 2)
    again = run(Store(tmp_path), "screened_corpus", SECTIONS["screened_corpus"], {"raw_corpus": corpus["raw_corpus"].artifact})
    assert not again.reused and again.artifact.data_version == corpus["screened_corpus"].artifact.data_version


def test_a_worker_killed_in_mid_shard_commits_nothing(tmp_path: Path, corpus: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARALLEL_FROM", 0)
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(module, "screen_shard", die)
    store = Store(tmp_path)
    with pytest.raises(WorkerDiedError, match="nothing was committed"):
        run(store, "screened_corpus", SECTIONS["screened_corpus"], {"raw_corpus": corpus["raw_corpus"].artifact})
    assert not list(store.manifests())


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_page_shows_masked_samples_before_and_after(tmp_path: Path) -> None:
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=documents(*TEXTS))
    page = (
        run(Store(tmp_path / "home"), "screened_corpus", KEEP_ANY, {"raw_corpus": raw}).artifact.path("pages/rules.html").read_text(encoding="utf-8")
    )
    assert "too_short" in page and "masked phone" in page and "服务员说有事打[PHONE]找他就行" in page and PHONE not in page
