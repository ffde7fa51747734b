from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from llm_assets.corpus.documents import doc_id, document_schema
from llm_assets.links.making import Outcome
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, artifact, documents, judge, run

LONG = "这家酒店的位置很好离地铁站只有五分钟早餐种类也多服务员态度热情房间干净整洁下次来上海还会选择住在这里"
TEXTS = ("考试题的原文在此!", "考试题的原文在此。", "新闻里没有标签", "新闻里没有标签!", LONG, LONG.replace("五", "六"), "到底好不好", "到底好不好?")
LABELS = ["positive", None, None, "negative", "positive", None, "positive", "negative"]


def evaluation(directory: Path, text: str, *members: str) -> Artifact:
    row = {"doc_id": doc_id(text), "text": text, "label": "positive", "domain": None, "split": "test", "cluster": "c"}
    pairs = pa.table({"doc_id": [doc_id(member) for member in (text, *members)], "cluster": ["c"] * (1 + len(members))})
    return artifact(directory, "evaluation_sets", evaluation__parquet=pa.Table.from_pylist([row]), members__parquet=pairs, labels__json=["positive"])


def cleaned(tmp_path: Path, sets: Artifact) -> Outcome:
    screened = artifact(tmp_path / "screened", "screened_corpus", documents__parquet=documents(*TEXTS, labels=LABELS))
    return run(Store(tmp_path / "home"), "clean_corpus", {"minimum_kept": 1}, {"screened_corpus": screened, "evaluation_sets": sets})


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    outcome = cleaned(tmp_path, evaluation(tmp_path / "sets", TEXTS[0]))
    clean = outcome.artifact
    table = clean.table("documents.parquet")
    assert table.schema == document_schema()
    kept = dict(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert kept == {TEXTS[3]: "negative", LONG: "positive", TEXTS[6]: None}  # labelled first, then earlier; contradiction unlabelled
    rejected: list[dict[str, Any]] = clean.table("rejects.parquet").to_pylist()
    assert {(row["doc_id"], row["rule"], row["evidence"]) for row in rejected} == {
        (doc_id(TEXTS[0]), "evaluation", doc_id(TEXTS[0])),
        (doc_id(TEXTS[1]), "evaluation", doc_id(TEXTS[0])),
        (doc_id(TEXTS[2]), "duplicate", doc_id(TEXTS[3])),
        (doc_id(TEXTS[5]), "near_duplicate", doc_id(LONG)),
        (doc_id(TEXTS[7]), "duplicate", doc_id(TEXTS[6])),
    }
    assert clean.metrics["contradictory_labels"] == 1
    assert all(verdict.passed for verdict in outcome.verdicts)


def test_every_member_of_a_drawn_cluster_goes_even_without_resemblance(tmp_path: Path) -> None:
    clean = cleaned(tmp_path, evaluation(tmp_path / "sets", TEXTS[0], TEXTS[6])).artifact
    assert TEXTS[6] not in clean.table("documents.parquet")["text"].to_pylist()


def test_the_real_slice_is_clean(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["clean_corpus"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    assert outcome.artifact.metrics["dropped"]["duplicate"] > 0 and outcome.artifact.metrics["dropped"]["evaluation"] > 0


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    clean, sets = corpus["clean_corpus"].artifact, corpus["evaluation_sets"].artifact
    test = sets.table("evaluation.parquet")["text"].to_pylist()
    long = max(test, key=len)

    def check(name: str, table: pa.Table) -> bool:
        return judge("clean_corpus", name, altered(clean, tmp_path / name, "clean_corpus", documents__parquet=table), evaluation_sets=sets).passed

    table = clean.table("documents.parquet")
    assert not check("decontaminated", pa.concat_tables([table, documents(test[0] + "!!!")]))
    assert not check("decontaminated", pa.concat_tables([table, documents(long[:-1] + "无")]))  # nearly equal
    member = documents("别的").set_column(0, "doc_id", sets.table("members.parquet")["doc_id"].slice(0, 1))
    assert not check("decontaminated", pa.concat_tables([table, member]))
    assert not check("deduplicated", pa.concat_tables([table, documents(table["text"][0].as_py() + "。")]))
    assert not check("enough_kept", table.slice(0, 5))
    assert not check("expectations", pa.concat_tables([table, table.slice(0, 1)]))


def test_an_evaluation_text_inside_a_longer_document_leaves_training(tmp_path: Path) -> None:
    held = "房间干净整洁服务员态度热情早餐种类也多"
    around = "昨天从北京坐高铁过来一路上都在下雨,到了之后发现" + held + ",不过停车场实在太小了只好停在马路对面走过来,晚上还挺吵的没有睡好。"
    screened = artifact(tmp_path / "screened", "screened_corpus", documents__parquet=documents(around, "到底好不好"))
    inputs = {"screened_corpus": screened, "evaluation_sets": evaluation(tmp_path / "sets", held)}
    clean = run(Store(tmp_path / "home"), "clean_corpus", {"minimum_kept": 1}, inputs).artifact
    assert clean.table("documents.parquet")["text"].to_pylist() == ["到底好不好"]
    assert [(row["rule"], row["evidence"]) for row in clean.table("rejects.parquet").to_pylist()] == [("evaluation_overlap", doc_id(held))]
    page = clean.path("pages/duplicates.html").read_text(encoding="utf-8")
    assert "昨天从北京坐高铁过来" in page and "(evaluation document)" in page
    leaked = altered(clean, tmp_path / "leaked", "clean_corpus", documents__parquet=documents(around))
    assert not judge("clean_corpus", "decontaminated", leaked, **inputs).passed
