from __future__ import annotations

import asyncio
import errno
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving.answers import new_id
from llm_assets.serving.errors import ApiError
from llm_assets.serving.feedback import Feedback, Vote, feedback_folder, read_votes

ANSWER = new_id()


def vote(answer: str = ANSWER, client: str = "ann", chain: str = "tiny", **said: Any) -> Vote:
    return Vote(chain=chain, id=answer, client=client, **{"index": 0, "rating": "up", "label": None, "comment": None, **said})


def store(home: Path, *votes: Vote, most: int = 100) -> list[Any]:
    """What each of some votes that come together gets, from a gateway that just started."""

    async def together() -> list[Any]:
        feedback = Feedback(home)
        results = await asyncio.gather(*(feedback.store(one, most) for one in votes), return_exceptions=True)
        await feedback.close()
        return results

    return asyncio.run(together())


def lines(home: Path, chain: str = "tiny") -> list[Any]:
    return [json.loads(line) for path in sorted((feedback_folder(home) / chain).iterdir()) for line in path.read_text().splitlines()]


def test_a_vote_is_a_line_of_the_agreed_shape_with_its_comment_masked(tmp_path: Path) -> None:
    assert store(tmp_path, vote(label="negative", comment="ask me@example.org")) == [True]
    [line] = lines(tmp_path)
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    expected = {"index": 0, "client": "ann", "rating": "up", "label": "negative", "comment": "ask [EMAIL]"}
    assert line == {"id": ANSWER, **expected}


def test_the_same_vote_again_is_no_new_line_before_and_after_a_restart(tmp_path: Path) -> None:
    same = vote(comment="call 13800138000")
    assert store(tmp_path, same, same) == [True, False]
    assert store(tmp_path, same) == [False]
    assert len(lines(tmp_path)) == 1


def test_the_newest_vote_of_a_client_on_a_text_counts(tmp_path: Path) -> None:
    store(tmp_path, vote(), vote(client="bob"), vote(index=1))
    assert store(tmp_path, vote(rating="down")) == [True]
    assert store(tmp_path, vote(rating="up")) == [True]  # back to the first, which no longer stands
    path = next((feedback_folder(tmp_path) / "tiny").iterdir())
    with path.open("a") as file:
        file.write('{"id": "cut')
    found = [(line["client"], line["index"], line["rating"]) for line in read_votes(tmp_path, "tiny")]
    assert found == [("bob", 0, "up"), ("ann", 1, "up"), ("ann", 0, "up")] and len(lines_of(path)) == 5
    assert read_votes(tmp_path, "other") == []


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()[:-1]


def test_a_client_has_so_many_votes_a_day_over_all_chains_and_restarts(tmp_path: Path) -> None:
    others = [vote(new_id()) for _ in range(3)]
    assert store(tmp_path, vote(), vote(chain="other", answer=new_id()), most=3) == [True, True]
    last, refused = store(tmp_path, *others[:2], most=3)
    assert last is True and isinstance(refused, ApiError) and refused.status == 429
    assert 0 < int((refused.headers or {})["Retry-After"]) <= 86_400
    assert store(tmp_path, vote(), most=3) == [False]  # it stands already, so it costs nothing
    assert store(tmp_path, vote(client="bob"), most=3) == [True]


def test_yesterdays_votes_do_not_count_for_today(tmp_path: Path) -> None:
    path = feedback_folder(tmp_path) / "tiny" / "2026-01-01.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"id": new_id(), "index": 0, "client": "ann"}) + "\n" for _ in range(5)))
    assert store(tmp_path, vote(), most=1) == [True]


def test_a_vote_that_cannot_be_written_is_refused_and_may_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    async def scenario() -> None:
        feedback = Feedback(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr("llm_assets.serving.dated_files.os.fsync", full)
            same = await asyncio.gather(feedback.store(vote(), 1), feedback.store(vote(), 1), return_exceptions=True)
        assert [isinstance(result, ApiError) and result.status for result in same] == [503, 503]
        assert await feedback.store(vote(), 1)  # neither stands already nor has used up the day
        await feedback.close()

    asyncio.run(scenario())
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize("change", [{"rating": None}, {"label": "negative"}, {"comment": "no"}])
def test_a_vote_that_says_something_else_is_new(tmp_path: Path, change: dict[str, Any]) -> None:
    assert store(tmp_path, vote(), vote(**change)) == [True, True]


def test_a_reply_that_would_have_been_right_is_masked_and_a_label_is_not(tmp_path: Path) -> None:
    words = "call 13800138000"
    store(tmp_path, vote(label=words, is_reply=True, comment="or me@example.org"), vote(client="bob", label=words))
    assert [(line["label"], line["comment"]) for line in lines(tmp_path)] == [("call [PHONE]", "or [EMAIL]"), (words, None)]
    assert store(tmp_path, vote(label=words, is_reply=True, comment="or me@example.org")) == [False]
