from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from llm_assets.links.making import Outcome
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, artifact, documents, judge, run


def test_the_slice_gives_labelled_examples_with_domains(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["labelled_examples"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    table = outcome.artifact.table("train.parquet")
    assert table.column_names == ["doc_id", "text", "label", "domain"]
    assert outcome.artifact.json("labels.json") == ["negative", "positive"] == sorted(set(table["label"].to_pylist()))
    assert set(table["domain"].to_pylist()) == {"books", None}
    held = set(corpus["evaluation_sets"].artifact.table("members.parquet")["doc_id"].to_pylist())
    assert not held & set(table["doc_id"].to_pylist())


def test_disputed_and_unwanted_labels_stay_out(tmp_path: Path) -> None:
    texts = ("好得很啊", "到底如何", "到底如何!", "坏得很啊", "不予置评", "没有标签")
    table = documents(*texts, labels=["positive", "positive", "negative", "negative", "neutral", None])
    clean = artifact(tmp_path / "clean", "clean_corpus", documents__parquet=table)
    made = run(Store(tmp_path / "home"), "labelled_examples", {"labels": ["negative", "positive"]}, {"clean_corpus": clean}).artifact
    assert made.table("train.parquet")["text"].to_pylist() == ["好得很啊", "坏得很啊"]
    assert made.metrics["contradictory_labels"] == 2


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    examples, clean = corpus["labelled_examples"].artifact, corpus["clean_corpus"].artifact
    table = examples.table("train.parquet")

    def check(name: str, train: pa.Table, **files: object) -> bool:
        broken = altered(examples, tmp_path / name, "labelled_examples", train__parquet=train, **files)
        return judge("labelled_examples", name, broken, clean_corpus=clean).passed

    one_sided = table.filter(pa.compute.equal(table["label"], "positive"))
    assert not check("balanced", one_sided)
    assert not check("balanced", one_sided, labels__json=["positive"])
    first = table.slice(0, 1)
    other = first.set_column(2, "label", pa.array(["negative" if first["label"][0].as_py() == "positive" else "positive"]))
    assert not check("undisputed", pa.concat_tables([table, other]))
    assert not check("from_clean_corpus", pa.concat_tables([table, first.set_column(0, "doc_id", pa.array(["0" * 20]))]))
    assert not check("expectations", pa.concat_tables([table, first]))
