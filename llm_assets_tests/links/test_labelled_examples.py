from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from llm_assets.links.labelled_examples import LINK
from llm_assets.links.making import Outcome
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, artifact, documents, judge, run

PHONE = "13812345678"


def test_the_slice_gives_labelled_examples_with_domains(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["labelled_examples"]
    assert all(verdict.passed for verdict in outcome.verdicts if verdict.blocking)  # 400 reviews are too few to estimate noise well
    table = outcome.artifact.table("train.parquet")
    assert table.column_names == ["doc_id", "text", "label", "domain", "provenance"]
    assert set(table["provenance"].to_pylist()) == {"positive", "negative"}
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
    assert made.metrics["outside"] == {"neutral": 1}
    assert "rarest with 1 examples" in made.metrics["noise_skipped"]
    assert made.rows("suspects.parquet") == 0
    assert judge("labelled_examples", "labels_consistent", made, clean_corpus=clean).passed


def planted(directory: Path) -> tuple[Artifact, str]:
    """60 good and 60 bad texts, one good text labelled bad; and its doc_id."""
    texts = [f"{PHONE} 非常好看喜欢{n}赞" for n in range(60)] + [f"太差失望退货{n}骗" for n in range(60)]
    table = documents(*texts, labels=["bad", *["good"] * 59, *["bad"] * 60])
    return artifact(directory, "clean_corpus", documents__parquet=table), table["doc_id"][0].as_py()


def test_a_wrong_label_is_found_shown_masked_and_dropped_on_demand(tmp_path: Path) -> None:
    clean, wrong = planted(tmp_path / "clean")
    store = Store(tmp_path / "home")
    made = run(store, "labelled_examples", {"maximum_noise": 0.0}, {"clean_corpus": clean})
    suspects = made.artifact.table("suspects.parquet").to_pylist()
    assert [(one["doc_id"], one["given"], one["suggested"]) for one in suspects[:1]] == [(wrong, "bad", "good")]
    assert made.artifact.metrics["suspects"] == len(suspects)
    assert 0 < made.artifact.metrics["noise_rate"] < 0.1
    page = made.artifact.path("pages/suspects.html").read_text(encoding="utf-8")
    assert wrong in page
    assert "[PHONE]" in page
    assert PHONE not in page
    assert [verdict.check for verdict in made.verdicts if not verdict.passed] == ["labels_consistent"]
    assert not any(verdict.blocking for verdict in made.verdicts if not verdict.passed)
    dropped = run(store, "labelled_examples", {"drop_suspects": True}, {"clean_corpus": clean}).artifact
    assert wrong not in dropped.table("train.parquet")["doc_id"].to_pylist()
    assert dropped.rows("train.parquet") == 120 - len(suspects)
    unasked = run(store, "labelled_examples", {"noise_folds": 0}, {"clean_corpus": clean}).artifact
    assert "noise_rate" not in unasked.metrics
    with pytest.raises(ValidationError, match="drop_suspects needs"):
        LINK.config.model_validate({"noise_folds": 0, "drop_suspects": True})


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


def test_several_labels_are_written_alike_and_counted_each(tmp_path: Path) -> None:
    texts = ("房间干净", "价格便宜", "位置不错", "位置不错!", "都不相关", "有人不在")
    table = documents(*texts, labels=["room", " price|room", "place|room", "room|place", "", "room|staff"])
    clean = artifact(tmp_path / "clean", "clean_corpus", documents__parquet=table)
    config = {"problem": "multi_label", "labels": ["place", "price", "room"]}
    outcome = run(Store(tmp_path / "home"), "labelled_examples", config, {"clean_corpus": clean})
    made = outcome.artifact
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    assert made.table("train.parquet")["label"].to_pylist() == ["room", "price|room", "place|room", "place|room", ""]  # the same in another order
    assert made.json("labels.json") == ["place", "price", "room"] and made.metrics["labels"] == {"place": 2, "price": 1, "room": 4}
    assert made.metrics["outside"] == {"room|staff": 1} and "one label each" in made.metrics["noise_skipped"]
    rare = altered(made, tmp_path / "rare", "labelled_examples", labels__json=["place", "price", "room", "staff"])
    assert not judge("labelled_examples", "balanced", rare, clean_corpus=clean).passed


def test_numbers_are_examples_and_anything_else_is_named(tmp_path: Path) -> None:
    def outcome(name: str, *labels: str) -> Outcome:
        table = documents("房间干净", "价格便宜", "位置不错", labels=list(labels))
        clean = artifact(tmp_path / name, "clean_corpus", documents__parquet=table)
        return run(Store(tmp_path / "home"), "labelled_examples", {"problem": "regression"}, {"clean_corpus": clean})

    made = outcome("numbers", "3", "2.50", "-1e2")
    assert all(verdict.passed for verdict in made.verdicts), made.verdicts
    assert made.artifact.table("train.parquet")["label"].to_pylist() == ["3.0", "2.5", "-100.0"] and made.artifact.json("labels.json") == ["value"]
    assert not next(verdict for verdict in outcome("one", "1", "1.0", "1").verdicts if verdict.check == "balanced").passed
    with pytest.raises(ValueError, match="label 'much' is no finite number"):
        outcome("words", "3", "much", "1")
    with pytest.raises(ValidationError, match="a regression's labels are numbers"):
        LINK.config.model_validate({"problem": "regression", "labels": ["a", "b"]})
