from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llm_assets.corpus.batches import write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.links.conversations import LINK, ConversationsConfig
from llm_assets.links.making import Outcome, make, recipe_of
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import describe_files
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets_tests.corpus.material import artifact, documents, no_launch

HELD_OUT = "请问你们店里的这一件红色外套还有没有大号的\n这一件红色外套大号的已经卖完了要等下个星期再来"
CONFIG: dict[str, Any] = {
    "sources": ["shop", "pairs"],
    "tasks": [{"name": "translation", "sources": ["pairs"], "instruction": "Translate into Chinese: {ask}"}],
    "minimum_examples": 2,
}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    dialogues = ("什么时候发货啊\n在的客官", "在吗\n在\n谢谢", "有人吗", "包邮吗\n包邮\n好\n嗯嗯")
    tables = [
        documents(*dialogues, source="shop"), documents("Open\n打开", "Save {ask}\n保存", source="pairs"), documents("新闻一条", source="news"),
    ]  # fmt: skip
    members = pa.table({"doc_id": pa.array(["0" * 20]), "cluster": pa.array(["c"])})
    return {
        "clean_corpus": artifact(tmp_path / "clean", "clean_corpus", documents__parquet=pa.concat_tables(tables)),
        "evaluation_sets": artifact(tmp_path / "sets", "evaluation_sets", members__parquet=members),
    }


def run(home: Path, inputs: dict[str, Artifact]) -> Outcome:
    return make(Store(home), LINK, ConversationsConfig.model_validate(CONFIG), inputs, seed=0, launch=no_launch)


def said(number: int, text: str, label: str, answered: str = "不知道") -> dict[str, Any]:
    return {
        "doc_id": doc_id(f"{text}\n{label or answered}"), "id": f"chatcmpl-{number}", "index": 0, "at": f"2026-11-{number + 1:02}", "text": text,
        "label": label, "answered": answered, "votes": 1, "provenance": "feedback",
    }  # fmt: skip


def learn(home: Path, inputs: dict[str, Artifact], *rows: dict[str, Any], held_out: str = HELD_OUT, label: str = "shop", **feedback: Any) -> Outcome:
    """The examples with feedback beside them, which is compared with one evaluation document."""
    held = pa.table({"doc_id": ["0" * 20], "text": [held_out], "label": [label], "split": ["test"], "cluster": ["c"]})
    sets = {"evaluation__parquet": held, "members__parquet": inputs["evaluation_sets"].table("members.parquet")}
    given = {**inputs, "evaluation_sets": artifact(home / "held", "evaluation_sets", **sets)}
    write_batch(home / "feedback", rows)
    config = ConversationsConfig.model_validate({**CONFIG, "feedback": {"folder": str(home / "feedback"), **feedback}})
    return make(Store(home), LINK, config, given, seed=0, launch=no_launch)


def judged(artifact: Artifact, check: str, inputs: dict[str, Artifact]) -> Verdict:
    return next(one for one in LINK.checks if one.name == check).judge(artifact, inputs)


def test_conversations_carry_roles_and_their_task(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    outcome = run(tmp_path / "home", inputs)
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    rows = outcome.artifact.table("train.parquet").to_pylist()
    said = [([turn["content"] for turn in row["messages"]], row["task"], row["source"]) for row in rows]
    assert said == [
        (["什么时候发货啊", "在的客官"], "conversation", "shop"),
        (["在吗", "在"], "conversation", "shop"),  # nobody answers the last turn
        (["包邮吗", "包邮", "好", "嗯嗯"], "conversation", "shop"),
        (["Translate into Chinese: Open", "打开"], "translation", "pairs"),
        (["Translate into Chinese: Save {ask}", "保存"], "translation", "pairs"),
    ]
    assert {turn["role"] for row in rows for turn in row["messages"][::2]} == {"user"}
    assert {turn["role"] for row in rows for turn in row["messages"][1::2]} == {"assistant"}
    metrics = outcome.artifact.metrics
    assert metrics["dropped"] == {"no_assistant_turn": 1} and metrics["last_turns_cut"] == 1
    assert metrics["tasks"] == {"conversation": 3, "translation": 2} and metrics["sources"] == {"shop": 3, "pairs": 2}
    (rejected,) = outcome.artifact.table("rejects.parquet").to_pylist()
    assert (rejected["rule"], rejected["evidence"], rejected["line"]) == ("no_assistant_turn", "有人吗", 3)


def test_checks_fail(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    made = run(tmp_path / "home", inputs).artifact
    table = made.table("train.parquet")
    rows = table.to_pylist()

    def check(name: str, rows: list[dict[str, Any]], **others: Artifact) -> bool:
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "tasks.json").write_bytes(made.path("tasks.json").read_bytes())
        pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "train.parquet")
        broken = Artifact(folder, made.manifest.model_copy(update={"files": describe_files(folder)}))
        return judged(broken, name, {**inputs, **others}).passed

    assert all(check(name, rows) for name in ("answered", "enough", "from_clean_corpus", "expectations"))
    unanswered = {**rows[0], "messages": rows[0]["messages"][:1]}
    empty = {**rows[0], "messages": [rows[0]["messages"][0], {"role": "assistant", "content": " "}]}
    turned = {**rows[0], "messages": rows[0]["messages"][::-1]}
    for bad in (unanswered, empty, turned, {**rows[0], "messages": []}):
        assert not check("answered", [bad, *rows[1:]])
        assert not check("expectations", [bad, *rows[1:]])
    assert not check("expectations", [*rows, rows[0]])
    assert not check("expectations", [{**rows[0], "task": "poetry"}, *rows[1:]])
    assert not check("enough", rows[:4])
    assert not check("from_clean_corpus", [{**rows[0], "doc_id": "f" * 20}, *rows[1:]])
    members = pa.table({"doc_id": pa.array([rows[0]["doc_id"]]), "cluster": pa.array(["c"])})
    leaked = artifact(tmp_path / "leaked", "evaluation_sets", members__parquet=members)
    assert not check("from_clean_corpus", rows, evaluation_sets=leaked)


def test_tasks_that_contradict_the_sources_are_refused() -> None:
    for tasks, reason in (
        ([{"name": "titles", "sources": ["bbc"]}], "tasks name bbc"),
        ([{"name": "one", "sources": ["shop"]}, {"name": "two", "sources": ["shop"]}], "stand in two tasks"),
        ([{"name": "one", "sources": ["shop"], "instruction": "Translate"}], "holds {ask}"),
    ):
        with pytest.raises(ValidationError, match=reason):
            ConversationsConfig.model_validate({"sources": ["shop"], "tasks": tasks})


def test_replies_that_users_called_right_or_wrote_join_the_conversations(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    before = run(tmp_path / "home", inputs).artifact.table("train.parquet").to_pylist()
    outcome = learn(tmp_path, inputs, said(0, "多少钱", "十元"), said(1, "在吗\n在\n几点关门", "九点", "九点"), said(2, "你好", ""))
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    rows = outcome.artifact.table("train.parquet").to_pylist()
    assert rows[:5] == before
    assert [([turn["content"] for turn in row["messages"]], row["task"], row["source"]) for row in rows[5:]] == [
        (["多少钱", "十元"], "conversation", "feedback"),
        (["在吗", "在", "几点关门", "九点"], "conversation", "feedback"),
    ]
    assert [turn["role"] for turn in rows[6]["messages"]] == ["user", "assistant"] * 2
    metrics = outcome.artifact.metrics
    assert metrics["examples"] == 7 and metrics["feedback"]["examples"] == 2 and metrics["feedback"]["left_out"]["no_right_reply"] == 1
    assert set(outcome.artifact.manifest.inputs) == {"clean_corpus", "evaluation_sets"} and outcome.artifact.manifest.recipe["observed"]["feedback"]


def test_what_may_not_be_learned_from_is_left_out_by_reason(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    asked, reply = HELD_OUT.split("\n")
    outcome = learn(
        tmp_path, inputs,
        said(0, "在吗", "在"), said(1, "Translate into Chinese: Open", "打开"),  # the corpus has both
        said(2, "多少钱", "十元", "十元"), said(3, "多少钱？", "五元", "十元!"),
        said(4, "几点", "九点"), said(5, "几点", "九点。"),
        said(6, asked, reply), said(7, f"你好\n您好\n{asked}", reply), said(8, asked.replace("一件", "件"), reply),
    )  # fmt: skip
    rows = outcome.artifact.table("train.parquet").to_pylist()
    assert [[turn["content"] for turn in row["messages"]] for row in rows[5:]] == [["多少钱？", "五元"], ["几点", "九点。"]]
    expected = {"no_right_reply": 0, "in_the_corpus": 2, "contradictory": 1, "repeated": 1, "evaluation": 3, "over_share": 0}
    assert outcome.artifact.metrics["feedback"] == {"examples": 2, "left_out": expected}
    many = learn(tmp_path / "share", inputs, *(said(n, f"问题{n}", f"答案{n}") for n in range(9)), share=0.5)
    assert [row["messages"][0]["content"] for row in many.artifact.table("train.parquet").to_pylist()[5:]] == [f"问题{n}" for n in range(4, 9)]


def test_what_a_held_out_document_asks_in_its_tasks_words_is_not_learned_from(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    rows = said(0, "Translate into Chinese: Cancel", "取消"), said(1, "多少钱", "十元")
    outcome = learn(tmp_path, inputs, *rows, held_out="Cancel\n取消", label="pairs")
    assert outcome.artifact.metrics["feedback"]["examples"] == 1 and outcome.artifact.metrics["feedback"]["left_out"]["evaluation"] == 1


def test_feedback_that_holds_evaluation_text_fails_the_check(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    outcome = learn(tmp_path, inputs, said(0, "多少钱", "十元"))
    made, table = outcome.artifact, outcome.artifact.table("train.parquet")
    given = {**inputs, "evaluation_sets": Artifact(tmp_path / "held", made.manifest)}
    assert judged(made, "from_clean_corpus", given).passed
    rows = table.to_pylist()
    for content, turn in zip(HELD_OUT.split("\n"), rows[-1]["messages"], strict=True):
        turn["content"] = content
    (tmp_path / "leak").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "leak" / "train.parquet")
    assert not judged(Artifact(tmp_path / "leak", made.manifest), "from_clean_corpus", given).passed
    plain = made.manifest.model_copy(update={"recipe": {**made.manifest.recipe, "config": CONFIG}})
    assert not judged(Artifact(made.directory, plain), "from_clean_corpus", given).passed  # a source of that name is no feedback


def test_without_the_key_the_recipe_is_what_it_was(inputs: dict[str, Artifact]) -> None:
    recipe = recipe_of(LINK, ConversationsConfig.model_validate(CONFIG), inputs, 17)
    assert set(recipe.config) == {"sources", "tasks", "minimum_examples"} and recipe.observed == {}
    assert recipe.inputs == {"clean_corpus": inputs["clean_corpus"].data_version}
