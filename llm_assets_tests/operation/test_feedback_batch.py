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
from llm_assets_tests.operation.traffic import NOON, line, reply, vote, write_log

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


def talked(home: Path, *lines: dict[str, Any]) -> None:
    write_log(home, lines)


def said(number: int, client: str = "ann", **fields: Any) -> dict[str, Any]:
    return vote(number, client=client, **{"id": f"chatcmpl-{number:04}", **fields})


def replies(home: Path) -> list[tuple[str, str, str]]:
    return [(row["text"], row["answered"], row["label"]) for row in rows(home)]


def test_votes_on_replies_become_right_wrong_and_corrected_ones(tmp_path: Path) -> None:
    talked(
        tmp_path,
        reply(0, "明天发货", "什么时候\n发货"), reply(1, "不知道", "多少钱", "什么?", "这个<br>多少钱"),
        reply(2, "滚", "你好"), reply(3, "在", "在吗"),
    )  # fmt: skip
    cast = [said(0, rating="up"), said(1, rating="down", label="十元，\n请打13812345678"), said(2, rating="down"), said(3, comment="hm")]
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path)
    assert replies(tmp_path) == [
        ("什么时候 发货", "明天发货", "明天发货"),
        ("多少钱\n什么?\n这个 多少钱", "不知道", "十元, 请打[PHONE]"),
        ("你好", "滚", ""),
    ]
    assert record["rows"] == 3 and record["labels"] == {"corrected": 1, "right": 1, "wrong": 1}  # no reply stands in the journal
    assert record["left_out"] | {"no_label": 1, "not_whole": 0} == record["left_out"]
    first, second, third = rows(tmp_path)
    assert first["doc_id"] == doc_id("什么时候 发货\n明天发货") and second["doc_id"] == doc_id("多少钱\n什么?\n这个 多少钱\n十元, 请打[PHONE]")
    assert third["doc_id"] == doc_id("你好\n滚")
    assert act(tmp_path)["batch"] is None  # the same votes make no second batch


def test_a_reply_that_was_cut_off_or_stands_in_no_whole_conversation_is_not_learned_from(tmp_path: Path) -> None:
    talked(
        tmp_path,
        reply(0, "明天发", "发货", finish="length"), reply(1, "明天发", "发货吗", finish="length"),
        reply(2, "好", "扮演海盗", "你好", roles=["system", "user"]), reply(3, "", "你好"), reply(4, "多" * 2000, "你好"),
    )  # fmt: skip
    cast = [said(0, rating="up"), said(1, rating="down", label="明天发货"), said(2, rating="up"), said(3, rating="up"), said(4, rating="up")]
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path)
    assert replies(tmp_path) == [("发货吗", "明天发", "明天发货")] and record["left_out"]["not_whole"] == 4


def test_votes_on_an_adapters_replies_are_counted_and_teach_the_model_nothing(tmp_path: Path) -> None:
    talked(tmp_path, reply(0, "ten yuan", "十元", adapter="translation"), reply(1, "九折", "十元"), reply(2, "9", "十元", adapter="translation"))
    write_log(tmp_path, [said(0, rating="up"), said(1, rating="up"), said(2, rating="down", label="ten yuan")], kind="feedback")
    record = act(tmp_path)
    assert replies(tmp_path) == [("十元", "九折", "九折")] and record["left_out"]["of_an_adapter"] == 2 and record["votes"] == 3


def test_each_reply_to_a_question_is_voted_on_by_itself(tmp_path: Path) -> None:
    talked(tmp_path, reply(0, "在", "在吗"), reply(1, "您好", "在吗？"), reply(2, "在", "在吗"), reply(3, "滚", "在吗"))
    cast = [
        said(0, rating="up"), said(2, "bob", rating="down"),  # of one reply: a tie
        said(1, rating="up"), said(1, "bob", rating="up"), said(1, "eve", label="不在"),
        said(3, rating="down"),
    ]  # fmt: skip
    write_log(tmp_path, cast, kind="feedback")
    record = act(tmp_path)
    assert replies(tmp_path) == [("在吗?", "您好", "您好"), ("在吗", "滚", "")]
    assert record["left_out"]["tie"] == 1 and record["left_out"]["outvoted"] == 1


def test_one_client_cannot_teach_the_model_its_replies(tmp_path: Path) -> None:
    talked(tmp_path, *(reply(n, "好", f"问题{n}") for n in range(20)))
    write_log(tmp_path, [said(n, "flood" if n < 15 else "ann", label="买我") for n in range(20)], kind="feedback")
    record = act(tmp_path, FeedbackBatchConfig(minimum=1, client_share=0.5))
    assert Counter(int(row["id"][-4:]) < 15 for row in rows(tmp_path)) == {True: 5, False: 5} and record["left_out"]["client_cap"] == 10


@pytest.mark.parametrize("erased", ["张先生住哪里", "他住北京路5号", "我不能说", "你好\n您好\n张先生住哪里", "你好\n您好\n张先生住哪里\n我不能说"])
def test_a_conversation_of_which_a_piece_was_erased_does_not_come_back(tmp_path: Path, erased: str) -> None:
    talked(tmp_path, reply(0, "他住北京路5号", "你好", "您好", "张先生住哪里"), reply(1, "好", "早餐"))
    write_log(tmp_path, [said(0, label="我不能说"), said(1, rating="up")], kind="feedback")
    Tombstones.of(tmp_path).add("asked to", *map(doc_id, versions(erased)))
    record = act(tmp_path)
    assert record["left_out"]["erased"] == 1 and replies(tmp_path) == [("早餐", "好", "好")]


def test_an_erased_correction_is_none(tmp_path: Path) -> None:
    talked(tmp_path, reply(0, "不知道", "多少钱"))
    write_log(tmp_path, [said(0, rating="down", label="[ERASED]")], kind="feedback")
    act(tmp_path)
    assert replies(tmp_path) == [("多少钱", "不知道", "")]
