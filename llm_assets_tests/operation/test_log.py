from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.operation import log
from llm_assets.serving.recorder import Recorder
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.operation.traffic import NOON, line, reply, write_log


def test_newest_first_across_days_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "BLOCK", 100)  # shorter than a line
    entries = [line(n, f"第{n}条", at=NOON + timedelta(hours=5 * n)) for n in range(6)]
    assert len(write_log(tmp_path, entries)) == 2
    assert [request.id for request in log.newest_requests(tmp_path, "tiny")] == [entry["id"] for entry in reversed(entries)]
    since = log.requests_since(tmp_path, "tiny", NOON + timedelta(hours=10))
    assert [request.id for request in since] == [entry["id"] for entry in entries[2:]]
    assert list(log.newest_requests(tmp_path, "other")) == []


def test_what_is_no_request_is_none_and_stops_nothing(tmp_path: Path) -> None:
    (path,) = write_log(tmp_path, [line(1, "好"), line(2, "坏")])
    whole = path.read_text(encoding="utf-8").splitlines()
    odd = ['{"id": "cut off', "[]", '{"id": 1}', whole[0].replace('"labels": ["positive"]', '"labels": []'), whole[0].replace("+00:00", "")]
    path.write_text("\n".join([whole[0], *odd, whole[1]]) + "\n", encoding="utf-8")
    found = list(log.requests(path))
    assert [request and request.id for request in found] == ["classify-0001", None, None, None, None, None, "classify-0002"]
    assert [request.id for request in log.newest_requests(tmp_path, "tiny")] == ["classify-0002", "classify-0001"]


def test_the_certainty_of_an_answer(tmp_path: Path) -> None:
    def certainty(*probs: float) -> float | None:
        (path,) = write_log(tmp_path / str(probs), [line(1, "好", probs=[list(probs)])])
        request = next(log.requests(path))
        assert request is not None
        return request.texts[0].certainty

    assert certainty(0.2, 0.8) == 0.8
    assert certainty(0.9, 0.6, 0.2) == 0.6  # several labels
    assert certainty(3.5) is None  # a number


def test_what_the_gateway_writes_is_read(tmp_path: Path) -> None:
    answer = {"labels": ["positive", "positive"], "probs": [[0.1, 0.9]] * 2, "milliseconds": 2.5}
    shadow = {"release": "tiny-2", "labels": ["negative", "positive"]}
    asked = {
        "id": "classify-1",
        "at": "2026-11-20T12:00:00+00:00",
        "chain": "tiny",
        "release": "tiny-1",
        "client": "shop",
        "texts": ["请打13812345678", "很好"],
    }
    recorder = Recorder(log_folder(tmp_path))
    assert not recorder.write([{**asked, **answer, "shadow": shadow}])
    recorder.close()
    (request,) = log.newest_requests(tmp_path, "tiny")
    assert (request.id, request.release, request.client, request.milliseconds) == ("classify-1", "tiny-1", "shop", 2.5)
    assert [(text.masked, text.label, text.probs, text.shadow) for text in request.texts] == [
        ("请打[PHONE]", "positive", [0.1, 0.9], "negative"),
        ("很好", "positive", [0.1, 0.9], "positive"),
    ]


def replied(home: Path, **line: Any) -> log.Text:
    (path,) = write_log(home, [{**reply(1, "十元", "你好", "在的", "多少钱"), **line}])
    request = next(log.requests(path))
    assert request is not None
    (text,) = request.texts
    return text


def test_of_a_model_that_talks_the_last_turn_is_the_text_and_its_reply_beside_it(tmp_path: Path) -> None:
    text = replied(tmp_path)
    assert (text.index, text.masked, text.characters, text.label, text.certainty) == (0, "多少钱", 3, "stop", None)
    assert text.reply == log.Reply("十元", 2, "你好\n在的\n多少钱") and text.reply.is_whole


@pytest.mark.parametrize(
    "line",
    [
        reply(1, "十元", "说英语", "多少钱", roles=["system", "user"]),
        reply(1, "十元", "多少钱", roles=["prompt"]),
        reply(1, "十元", "多少钱" * 700),
        reply(1, "十元", "多少钱", "十元"),  # an assistant's turn that it is to go on with
    ],
)
def test_what_is_no_whole_conversation_of_user_and_assistant_has_no_turns_to_learn_from(tmp_path: Path, line: dict[str, Any]) -> None:
    text = replied(tmp_path, **line)
    assert text.masked and text.reply == log.Reply("十元", 2, "")


def test_an_erased_turn_leaves_the_reply_alone(tmp_path: Path) -> None:
    made = reply(1, "十元", "多少钱")
    made["texts"][1]["masked"] = None
    text = replied(tmp_path, **made)
    assert text.masked is None and text.reply == log.Reply("十元", 2, "")
