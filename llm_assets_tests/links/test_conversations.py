from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llm_assets.links.conversations import LINK, ConversationsConfig
from llm_assets.links.making import Outcome, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import describe_files
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets_tests.corpus.material import artifact, documents, no_launch

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
