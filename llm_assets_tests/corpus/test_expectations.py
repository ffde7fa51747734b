from __future__ import annotations

import json
import re
from functools import partialmethod
from pathlib import Path

import pyarrow as pa
import pytest

from llm_assets.corpus import expectations
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.expectations import judge_documents, judge_examples, judge_index
from llm_assets.store.artifact import Artifact
from llm_assets_tests.corpus.material import artifact, documents

TEXT = "绝密的一句话不可外传"


def test_broken_rows_are_named_by_doc_id_and_never_shown(tmp_path: Path) -> None:
    table = documents(TEXT, "", TEXT)
    table = table.set_column(table.schema.get_field_index("line"), "line", pa.array([0, 2, 3]))
    verdict = judge_documents(artifact(tmp_path / "a", "clean_corpus", documents__parquet=table), "clean_corpus")
    assert not verdict.passed
    assert verdict.values["broken"] == {
        "ColumnValuesToBeBetween(line)": {"rows": 1, "doc_ids": [doc_id(TEXT)]},
        "ColumnValuesToBeBetween(characters)": {"rows": 1, "doc_ids": [doc_id("")]},
        "ColumnValuesToBeInSet(doc_id stands twice)": {"rows": 2, "doc_ids": [doc_id(TEXT)] * 2},
    }
    assert TEXT not in json.dumps(verdict.model_dump(mode="json"), ensure_ascii=False)
    assert verdict.page is not None
    assert TEXT not in verdict.page


def test_a_verdict_comes_with_the_report_of_the_library(tmp_path: Path) -> None:
    def page(name: str, *texts: str) -> str:
        return judge_documents(artifact(tmp_path / name, "clean_corpus", documents__parquet=documents(*texts)), "clean_corpus").page or ""

    good, bad = page("a", TEXT), page("b", TEXT, "")
    assert "values must match this regular expression" in good
    assert (good.count("text-danger"), good.count("Rows that break")) == (1, 0)  # the one is the style's
    assert doc_id("") in bad[bad.index("Rows that break") :]
    assert not re.search(r"<script|<link|<a |href|src=|https?:", bad)
    assert page("c", TEXT, "") == bad  # no times, no names drawn at random


def test_a_raw_corpus_may_repeat_a_text_but_not_a_place(tmp_path: Path) -> None:
    table = documents(TEXT, TEXT)
    assert judge_documents(artifact(tmp_path / "a", "raw_corpus", documents__parquet=table), "raw_corpus").passed
    twice = pa.concat_tables([table, table])
    verdict = judge_documents(artifact(tmp_path / "b", "raw_corpus", documents__parquet=twice), "raw_corpus")
    assert list(verdict.values["broken"]) == ["ColumnValuesToBeInSet(place stands twice)"]
    bare = table.set_column(table.schema.get_field_index("license"), "license", pa.array([None, "MIT"], pa.string()))
    assert not judge_documents(artifact(tmp_path / "c", "raw_corpus", documents__parquet=bare), "raw_corpus").passed


def test_examples_have_declared_labels(tmp_path: Path) -> None:
    table = documents("一二三四", "五六七八", labels=["good", "odd"]).select(["doc_id", "text", "label"])
    verdict = judge_examples(artifact(tmp_path / "a", "labelled_examples", train__parquet=table, labels__json=["bad", "good"]))
    assert list(verdict.values["broken"]) == ["ColumnValuesToBeInSet(label)"]
    assert judge_examples(artifact(tmp_path / "b", "labelled_examples", train__parquet=table, labels__json=["good", "odd"])).passed


def test_an_index_stays_inside_the_layout(tmp_path: Path) -> None:
    layout = {"blocks": 2, "context": 8, "padding_tokens": 4}
    index = {"doc_id": ["a", "b"], "block": [0, 1], "offset": [0, 2], "length": [10, 2], "blocks": [2, 1]}
    assert judge_index(artifact(tmp_path / "a", "tokens", layout__json=layout, documents__parquet=pa.table(index))).passed
    wrong = pa.table({**index, "block": [0, 2], "length": [10, 3]})
    verdict = judge_index(artifact(tmp_path / "b", "tokens", layout__json=layout, documents__parquet=wrong))
    assert list(verdict.values["broken"]) == ["ColumnValuesToBeBetween(block)", "ColumnValuesToBeBetween(tokens)"]


def test_a_table_is_judged_in_pieces_as_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = documents(*(f"{TEXT}{number % 700}" for number in range(1000)))
    made = artifact(tmp_path / "a", "clean_corpus", documents__parquet=table)
    whole = judge_documents(made, "clean_corpus")
    monkeypatch.setattr(expectations, "PIECE", 300)
    monkeypatch.setattr(Artifact, "batches", partialmethod(Artifact.batches, rows=100))
    assert judge_documents(made, "clean_corpus") == whole
    assert whole.values["broken"]["ColumnValuesToBeInSet(doc_id stands twice)"]["rows"] == 600
    empty = judge_documents(artifact(tmp_path / "b", "clean_corpus", documents__parquet=table.slice(0, 0)), "clean_corpus")
    assert list(empty.values["broken"]) == ["ColumnValuesToBeBetween(rows)"]
