from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from llm_assets.corpus.documents import doc_id
from llm_assets.links.evaluation_sets import EvaluationSetsConfig, assign
from llm_assets.links.making import Outcome
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, artifact, documents, judge, run

LARGE = {"test_share": 0.4, "validation_share": 0.4}


def drawn(outcome: Outcome) -> dict[str, str]:
    table = outcome.artifact.table("evaluation.parquet")
    return dict(zip(table["doc_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def raw_of(directory: Path, *texts: str, labels: list[str | None]) -> Artifact:
    return artifact(directory, "raw_corpus", documents__parquet=documents(*texts, labels=labels))


def test_the_slice_gives_sane_sets(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["evaluation_sets"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    metrics = outcome.artifact.metrics
    assert 0.05 < metrics["test"] / metrics["clusters"] < 0.15
    assert outcome.artifact.json("labels.json") == ["negative", "positive"]
    members = outcome.artifact.table("members.parquet")
    assert set(members["doc_id"].to_pylist()) >= set(drawn(outcome))


def test_old_assignments_stay_when_documents_come_and_order_does_not_matter(tmp_path: Path) -> None:
    texts = [f"第{number}家酒店的{'早餐' * (number % 5 + 1)}真是{number * 7919}分" for number in range(60)]
    labels: list[str | None] = ["positive", "negative"] * 30
    store = Store(tmp_path / "home")
    few = run(store, "evaluation_sets", LARGE, {"raw_corpus": raw_of(tmp_path / "few", *texts[:40], labels=labels[:40])})
    order = list(range(60))[::-1]
    more = raw_of(tmp_path / "more", *[texts[i] for i in order], labels=[labels[i] for i in order])
    before, after = drawn(few), drawn(run(store, "evaluation_sets", LARGE, {"raw_corpus": more}))
    assert len(before) > 10 and before.items() <= after.items()
    second = drawn(run(store, "evaluation_sets", {**LARGE, "version": 2}, {"raw_corpus": more}))
    assert second != after


def test_duplicates_collapse_contradictions_and_unlabelled_stay_out(tmp_path: Path) -> None:
    texts = ("很好的酒店!", "很好的酒店。", "一般般吧", "一般般吧!", "没有标签的文字", "!!!")
    labels = ["positive", "positive", "positive", "negative", None, "positive"]
    config = {"test_share": 0.89, "validation_share": 0.009}
    outcome = run(Store(tmp_path / "home"), "evaluation_sets", config, {"raw_corpus": raw_of(tmp_path / "raw", *texts, labels=labels)})
    assert outcome.artifact.metrics["contradictory_clusters"] == 1 and outcome.artifact.metrics["clusters"] == 2
    assert set(drawn(outcome)) == {min(doc_id(text) for text in texts[:2])}
    assert outcome.artifact.table("members.parquet").num_rows == 2


def test_only_a_near_duplicate_may_move_an_old_assignment_and_not_from_an_unnamed_source(tmp_path: Path) -> None:
    """The limit that the link's description states."""
    texts = [f"第{number}家酒店的早餐真是不错,房间也很干净,价格{number * 7919}元" for number in range(40)]
    labels: list[str | None] = ["positive"] * 40
    smaller = [f"0{text}" for text in texts]  # nearly equal, and its key sorts first
    old = documents(*texts, labels=labels, source="reviews")
    config = {**LARGE, "sources": ["reviews"], "near_duplicates": {"similarity": 0.6, "bands": 64}}

    def draw(name: str, more: pa.Table) -> dict[str, str]:
        raw = artifact(tmp_path / name, "raw_corpus", documents__parquet=pa.concat_tables([old, more]))
        return drawn(run(Store(tmp_path / "home"), "evaluation_sets", config, {"raw_corpus": raw}))

    before = draw("old", old.slice(0, 0))
    assert draw("inbox", documents(*smaller, labels=labels, source="inbox")) == before
    assert not before.items() <= draw("same", documents(*smaller, labels=labels, source="reviews")).items()


def test_named_sources_keep_new_ones_out(tmp_path: Path) -> None:
    config = {**LARGE, "sources": ["other"]}
    outcome = run(Store(tmp_path / "home"), "evaluation_sets", config, {"raw_corpus": raw_of(tmp_path / "raw", "很好的酒店", labels=["positive"])})
    assert drawn(outcome) == {}


def test_shares_are_met() -> None:
    config = EvaluationSetsConfig()
    splits = [assign(str(number), config) for number in range(20_000)]
    assert abs(splits.count("test") / 20_000 - 0.10) < 0.01 and abs(splits.count("validation") / 20_000 - 0.05) < 0.01
    with pytest.raises(ValidationError, match="less than a tenth"):
        EvaluationSetsConfig(test_share=0.6, validation_share=0.4)


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    sets = corpus["evaluation_sets"].artifact
    table = sets.table("evaluation.parquet")
    twice = altered(sets, tmp_path / "a", "evaluation_sets", evaluation__parquet=pa.concat_tables([table, table.slice(0, 1)]))
    assert not judge("evaluation_sets", "one_document_a_cluster", twice).passed
    one_sided = table.filter(pa.compute.equal(table["label"], "positive"))
    unlabelled = altered(sets, tmp_path / "b", "evaluation_sets", evaluation__parquet=one_sided)
    assert not judge("evaluation_sets", "every_label_in_every_set", unlabelled).passed
    single = altered(sets, tmp_path / "c", "evaluation_sets", evaluation__parquet=one_sided, labels__json=["positive"])
    assert not judge("evaluation_sets", "every_label_in_every_set", single).passed


def test_several_labels_and_numbers_have_sets_of_their_own(tmp_path: Path) -> None:
    texts = [f"第{number}家酒店的{'早餐' * (number % 5 + 1)}真是{number * 7919}分" for number in range(40)]
    store = Store(tmp_path / "home")
    several = raw_of(tmp_path / "several", *texts, labels=["price|room", "room | price", "room", ""] * 10)
    made = run(store, "evaluation_sets", {**LARGE, "problem": "multi_label"}, {"raw_corpus": several})
    assert all(verdict.passed for verdict in made.verdicts), made.verdicts
    assert made.artifact.json("labels.json") == ["price", "room"]
    assert set(made.artifact.table("evaluation.parquet")["label"].to_pylist()) == {"price|room", "room", ""}
    numbers = raw_of(tmp_path / "numbers", *texts, labels=[str(number / 2) for number in range(40)])
    made = run(store, "evaluation_sets", {**LARGE, "problem": "regression"}, {"raw_corpus": numbers})
    assert all(verdict.passed for verdict in made.verdicts), made.verdicts
    assert made.artifact.json("labels.json") == ["value"]


def test_documents_without_labels_are_of_the_class_of_their_source(tmp_path: Path) -> None:
    asked = [f"第{number}件商品{number * 7919}什么时候发货" for number in range(40)]
    tables = [documents(*(f"{one}\n明天发货{source}" for one in asked), source=source) for source in ("shop", "other", "news")]
    raw = artifact(tmp_path / "raw", "raw_corpus", documents__parquet=pa.concat_tables(tables))
    config = {**LARGE, "unlabelled": True, "sources": ["shop", "other"]}
    outcome = run(Store(tmp_path / "home"), "evaluation_sets", config, {"raw_corpus": raw})
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    assert outcome.artifact.json("labels.json") == ["other", "shop"]
    kept = outcome.artifact.table("evaluation.parquet")
    lone = altered(outcome.artifact, tmp_path / "lone", "evaluation_sets", evaluation__parquet=kept.filter(pa.compute.equal(kept["label"], "shop")))
    assert not judge("evaluation_sets", "every_label_in_every_set", lone).passed
    one = altered(lone, tmp_path / "one", "evaluation_sets", labels__json=["shop"])
    assert not judge("evaluation_sets", "every_label_in_every_set", one).passed  # the other source gave none
    with pytest.raises(ValidationError, match="name them"):
        EvaluationSetsConfig(unlabelled=True)
    assert "unlabelled" not in EvaluationSetsConfig().recipe() and config.items() <= EvaluationSetsConfig.model_validate(config).recipe().items()
