from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_assets.serving.answers import Answers, Known, moment_of, new_id
from llm_assets.serving.request_log import log_folder


def log(home: Path, chain: str, day: str, *answers: str) -> Path:
    path = log_folder(home) / chain / f"{day}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for answer in answers:
            file.write(json.dumps({"id": answer, "at": f"{day}T12:00:00+00:00", "texts": [{}, {}]}) + "\n")
    return path


def an_id(moment: datetime) -> str:
    return f"classify-{int(moment.timestamp() * 1000):012x}{'0' * 20}"


def test_an_id_says_when_it_was_made_and_is_like_no_other() -> None:
    some = [new_id() for _ in range(1000)]
    assert len(set(some)) == 1000
    moment = moment_of(some[0])
    assert moment and abs(moment - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "classify-", "classify-" + "f" * 32, "classify-" + "0" * 31, "classify-" + "0" * 33, "../" + "0" * 32])
def test_what_is_no_id_has_no_time(text: str) -> None:
    assert moment_of(text) is None


def test_an_answer_is_found_in_memory_and_in_the_log_of_its_day_or_the_next(tmp_path: Path) -> None:
    late, moved = an_id(datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)), an_id(datetime(2026, 3, 5, tzinfo=UTC))
    log(tmp_path, "tiny", "2026-03-02", late)
    log(tmp_path, "tiny", "2026-04-01", moved)
    answers = Answers(tmp_path)
    assert answers.find(late) == Known("tiny", 2)
    assert answers.find(moved) is None and answers.find("classify-1") is None
    fresh = new_id()
    answers.remember(fresh, "tiny", 1)
    assert answers.recall(fresh) == answers.find(fresh) == Known("tiny", 1)


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    path = log(tmp_path, "tiny", "2026-03-01")
    path.write_text(f'{{"id": "{an_id(moment)}", "cut\n')
    assert Answers(tmp_path).find(an_id(moment)) is None
    log(tmp_path, "tiny", "2026-03-01", an_id(moment))
    assert Answers(tmp_path).find(an_id(moment)) == Known("tiny", 2)


def test_memory_is_filled_with_the_newest_of_all_chains_and_stays_bounded(tmp_path: Path) -> None:
    log(tmp_path, "a", "2026-03-01", "1", "2")
    log(tmp_path, "a", "2026-03-03", "5", "6")
    log(tmp_path, "b", "2026-03-02", "3", "4").open("a").write('{"cut')
    answers = Answers(tmp_path, size=3)
    answers.load()
    assert [name for name in "123456" if answers.recall(name)] == ["4", "5", "6"]
    answers.remember("7", "a", 1)
    assert [name for name in "1234567" if answers.recall(name)] == ["5", "6", "7"]
