from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.audit.search import versions
from llm_assets.corpus.batches import batch_files, batch_folder, read_batches
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links.making import judge
from llm_assets.operation.feedback_batch import LINK, FeedbackBatchConfig, feedback_batch
from llm_assets_tests.operation.released import office, release, texts
from llm_assets_tests.operation.traffic import NOON, line, vote, write_log

FREE = FeedbackBatchConfig(minimum=1, client_share=1)


def act(home: Path, config: FeedbackBatchConfig = FREE) -> dict[str, Any]:
    return dict(feedback_batch(office(home, "feedback_batch"), config).record)


def rows(home: Path) -> list[dict[str, Any]]:
    return read_batches(batch_folder(home, "tiny")).to_pylist()


def asked(home: Path, *asked: str, labels: Sequence[str] = ()) -> None:
    write_log(home, [line(n, text, labels=[labels[n]] if labels else ["positive"]) for n, text in enumerate(asked)])


def test_corrections_and_confirmations_become_labelled_texts(tmp_path: Path) -> None:
    asked(tmp_path, "请打13812345678，房间脏", "早餐不错", "一般般", labels=["positive", "positive", "negative"])
    cast = [vote(0, label="negative", client="a"), vote(1, rating="up", client="b"), vote(2, rating="down", client="c")]
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path)
    assert record | {"rows": 2, "votes": 3, "labels": {"negative": 1, "positive": 1}, "clients": 2} == record
    assert record["left_out"] == {"no_label": 1, "unknown_label": 0, "tie": 0, "outvoted": 0, "client_cap": 0, "erased": 0}
    found = rows(tmp_path)
    assert [(row["text"], row["label"], row["id"], row["votes"], row["provenance"]) for row in found] == [
        ("请打[PHONE],房间脏", "negative", "classify-0000", 1, "feedback"),
        ("早餐不错", "positive", "classify-0001", 1, "feedback"),
    ]


def test_a_batch_is_written_once_and_never_changed(tmp_path: Path) -> None:
    asked(tmp_path, "甲好", "乙好", "丙好")
    write_log(tmp_path, [vote(0, rating="up", client="a"), vote(1, rating="up", client="b")], kind="feedback")
    first = act(tmp_path)
    (path,) = batch_files(batch_folder(tmp_path, "tiny"))
    content = path.read_bytes()
    again = act(tmp_path)
    assert first["batch"] == path.stem and again["batch"] is None and again["batches"] == 1
    write_log(tmp_path, [vote(0, label="negative", client="c"), vote(2, rating="up", client="c")], kind="feedback")
    second = act(tmp_path)
    assert path.read_bytes() == content and second["rows"] == 1 and [row["text"] for row in rows(tmp_path)] == ["甲好", "乙好", "丙好"]


def test_a_text_that_was_erased_does_not_come_back_when_it_is_asked_again(tmp_path: Path) -> None:
    asked(tmp_path, "张先生说房间脏！", "早餐不错")
    write_log(tmp_path, [vote(number, rating="up", client=f"c{number}") for number in range(2)], kind="feedback")
    Tombstones.of(tmp_path).add("asked to", *map(doc_id, versions("张先生说房间脏！")))
    record = act(tmp_path)
    assert record["left_out"]["erased"] == 1 and [row["text"] for row in rows(tmp_path)] == ["早餐不错"]


def test_the_majority_decides_and_a_tie_does_not(tmp_path: Path) -> None:
    asked(tmp_path, "很吵", "很吵！", "安静", "干净")  # the first two are one text
    cast = [
        vote(0, label="negative", client="a"), vote(1, label="negative", client="b"), vote(1, rating="up", client="c"),
        vote(2, label="negative", client="a"), vote(2, rating="up", client="b"),
        vote(3, label="negative", client="a"), vote(3, rating="up", client="a", at=NOON + timedelta(hours=1)),
    ]  # fmt: skip
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path)
    assert record["left_out"]["tie"] == 1 and record["left_out"]["outvoted"] == 1
    assert [(row["label"], row["votes"]) for row in rows(tmp_path)] == [("negative", 2), ("positive", 1)]


def test_one_client_cannot_outvote_the_rest(tmp_path: Path) -> None:
    """90 votes of one client against 10 of two others, and five texts that several agree on."""
    asked(tmp_path, *(f"第{n}条意见" for n in range(105)))
    cast = [vote(n, label="negative", client="flood" if n < 90 else "a" if n < 95 else "b") for n in range(100)]
    cast += [vote(n, rating="up", client=client) for n in range(100, 105) for client in ("flood", "a")]
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path, FeedbackBatchConfig(minimum=1, client_share=0.5))
    by_client = Counter("flood" if int(row["id"][-4:]) < 90 else "other" for row in rows(tmp_path))
    assert by_client == {"flood": 15, "other": 15} and record["left_out"]["client_cap"] == 75
    (verdict,) = judge(LINK, record, {})
    assert not verdict.passed and "75 more rest on one client's word" in verdict.description
    few = act(tmp_path / "again", FREE)
    assert few["rows"] == 0 and judge(LINK, few, {})[0].passed


@pytest.mark.parametrize(("share", "most", "kept"), [(1, 500, 30), (1, 7, 7), (0.9, 500, 0)])
def test_a_client_alone_is_heard_only_where_the_yaml_says_so(tmp_path: Path, share: float, most: int, kept: int) -> None:
    asked(tmp_path, *(f"第{n}条意见" for n in range(30)))
    write_log(tmp_path, [vote(n, rating="up") for n in range(30)], kind="feedback")
    record = act(tmp_path, FeedbackBatchConfig(minimum=1, client_share=share, client_rows=most))
    assert record["rows"] == kept and record["left_out"]["client_cap"] == 30 - kept


def test_too_few_wait(tmp_path: Path) -> None:
    asked(tmp_path, "甲好")
    write_log(tmp_path, [vote(0, rating="up")], kind="feedback")
    record = act(tmp_path, FeedbackBatchConfig(minimum=2, client_share=1))
    assert record["batch"] is None and record["waiting"] == 1 and rows(tmp_path) == []
    assert "1 of 2 texts wait" in judge(LINK, record, {})[0].description


def test_a_label_that_the_model_does_not_know_is_none(tmp_path: Path) -> None:
    release(tmp_path, texts(4, 1))
    asked(tmp_path, "甲好", "乙好")
    write_log(tmp_path, [vote(0, label="great"), vote(1, label="negative")], kind="feedback")
    record = act(tmp_path)
    assert record["left_out"]["unknown_label"] == 1 and [row["label"] for row in rows(tmp_path)] == ["negative"]
