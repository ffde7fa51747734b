from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm_assets.corpus.batches import read_batches, row_key, withdrawals, write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.links.labelled_examples import LINK, LabelledExamplesConfig
from llm_assets.links.making import Outcome, recipe_of
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, artifact, documents, judge, run

OLD = [f"旧书第{n}章写得很{'好' if n % 2 else '差'}" for n in range(40)]
HELD_OUT = "这是用来评估的一条很长的评论不应该被学习"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def batch(home: Path, *pairs: tuple[str, str], day: int = 1, provenance: str = "feedback") -> Path:
    rows = [
        {
            "doc_id": doc_id(text), "id": f"{day}-{n}", "index": 0, "at": f"2026-11-{day:02}T{n:02}", "text": text, "label": label, "votes": 1,
            "provenance": provenance,
        }
        for n, (text, label) in enumerate(pairs)
    ]  # fmt: skip
    return write_batch(home / "feedback" / "tiny", rows)


def inputs(home: Path) -> dict[str, Artifact]:
    table = documents(*OLD, labels=["good" if n % 2 else "bad" for n in range(40)])
    held = pa.table({"doc_id": ["0" * 20], "text": [HELD_OUT], "label": ["good"], "split": ["test"], "cluster": ["c"]})
    return {
        "clean_corpus": artifact(home / "in" / "clean", "clean_corpus", documents__parquet=table),
        "evaluation_sets": artifact(home / "in" / "sets", "evaluation_sets", evaluation__parquet=held),
    }


def learn(home: Path, section: dict[str, Any] | None = None, **feedback: Any) -> Outcome:
    given = {"noise_folds": 0, **(section or {}), "feedback": {"folder": "feedback/tiny", **feedback}}
    return run(Store(home), "labelled_examples", given, inputs(home))


def added(outcome: Outcome) -> list[tuple[str, str, str]]:
    rows = outcome.artifact.table("train.parquet").to_pylist()
    return [(row["text"], row["label"], row["provenance"]) for row in rows if row["provenance"] != "test"]


def test_feedback_joins_the_examples_and_all_old_ones_stay(home: Path) -> None:
    batch(home, ("房间很脏", "bad"))
    batch(home, ("早餐丰富", "good"), day=2, provenance="annotation")
    outcome = learn(home)
    assert added(outcome) == [("房间很脏", "bad", "feedback"), ("早餐丰富", "good", "annotation")]
    assert outcome.artifact.table("train.parquet")["text"].to_pylist()[:40] == OLD
    assert outcome.artifact.metrics["provenance"] == {"annotation": 1, "feedback": 1, "test": 40}
    assert all(verdict.passed for verdict in outcome.verdicts)
    assert {name: entry.link for name, entry in outcome.artifact.manifest.inputs.items()} == {
        "clean_corpus": "clean_corpus",
        "evaluation_sets": "evaluation_sets",
    }
    batch(home, ("位置偏僻", "bad"), day=3)
    assert len(added(learn(home))) == 3  # a new batch is a new recipe


def test_what_may_not_be_learned_from_is_left_out_by_reason(home: Path) -> None:
    batch(
        home,
        ("房间很脏", "terrible"),
        (OLD[0], "good"),  # the corpus says bad
        ("时好时坏", "good"), ("时好时坏！", "bad"),
        ("服务周到", "good"), ("服务周到。", "good"),
        (f"引用：{HELD_OUT}，谢谢", "good"),
        (HELD_OUT.replace("很长", "极长"), "bad"),
    )  # fmt: skip
    outcome = learn(home)
    assert added(outcome) == [("服务周到。", "good", "feedback")]
    expected = {"unknown_label": 1, "in_the_corpus": 1, "contradictory": 2, "repeated": 1, "evaluation": 2, "over_share": 0}
    assert outcome.artifact.metrics["feedback"] == {"examples": 1, "left_out": expected}


def test_the_share_keeps_the_newest(home: Path) -> None:
    batch(home, *((f"第{n}间房很吵", "bad") for n in range(20)))
    outcome = learn(home, share=0.2)
    assert [text for text, _, _ in added(outcome)] == [f"第{n}间房很吵" for n in range(10, 20)]  # 10 of 50
    assert outcome.artifact.metrics["feedback"]["left_out"]["over_share"] == 10
    assert len(added(learn(home, share=1))) == 20


def test_what_was_withdrawn_is_not_learned_from(home: Path) -> None:
    batch(home, ("早餐丰富", "good"))
    before = learn(home)
    wrong = batch(home, ("房间很脏", "good"), ("位置偏僻", "good"), day=2)
    assert len(added(learn(home))) == 3
    one, other = [row_key(row) for row in read_batches(wrong.parent).to_pylist()[1:]]
    withdrawals(wrong.parent).append({"rows": [one], "votes": []})
    assert [text for text, _, _ in added(learn(home))] == ["早餐丰富", "位置偏僻"]
    withdrawals(wrong.parent).append({"rows": [other], "votes": []})
    again = learn(home)
    assert again.reused and again.artifact.fingerprint == before.artifact.fingerprint  # what was made before these votes came


def test_feedback_that_holds_evaluation_text_fails_the_check(home: Path) -> None:
    batch(home, ("房间很脏", "bad"))
    outcome, given = learn(home), inputs(home)
    table = outcome.artifact.table("train.parquet")
    leak = table.slice(40, 1).set_column(1, "text", pa.array([HELD_OUT]))
    broken = altered(outcome.artifact, home / "broken", "labelled_examples", train__parquet=pa.concat_tables([table, leak]))
    assert judge("labelled_examples", "from_clean_corpus", outcome.artifact, **given).passed
    assert not judge("labelled_examples", "from_clean_corpus", broken, **given).passed


def test_without_the_key_the_recipe_is_what_it_was(home: Path) -> None:
    batch(home, ("房间很脏", "bad"))
    given = inputs(home)
    recipe = recipe_of(LINK, LabelledExamplesConfig(), given, 17)
    assert set(recipe.config) == {"problem", "labels", "minimum_share", "noise_folds", "drop_suspects", "maximum_noise"}
    assert recipe.inputs == {"clean_corpus": given["clean_corpus"].data_version} and recipe.observed == {}
    outcome = run(Store(home), "labelled_examples", {"noise_folds": 0}, given)
    assert added(outcome) == [] and set(outcome.artifact.manifest.inputs) == {"clean_corpus"}


def test_where_the_batches_stand_is_no_part_of_the_recipe(home: Path) -> None:
    path = batch(home, ("房间很脏", "bad"))
    given = inputs(home)

    def recipe(folder: str) -> dict[str, Any]:
        found = recipe_of(LINK, LabelledExamplesConfig.model_validate({"feedback": {"folder": folder}}), given, 17)
        return {"config": found.config, "observed": found.observed}

    other = home / "elsewhere"
    other.mkdir()
    assert recipe("feedback/none") == recipe(str(other)) != recipe("feedback/tiny")
    (other / path.name).write_bytes(path.read_bytes())
    assert recipe(str(other)) == recipe("feedback/tiny")
