from __future__ import annotations

from pathlib import Path

from llm_assets.operation.votes import joined, majority, votes
from llm_assets_tests.operation.traffic import line, vote, write_log


def test_a_clients_last_word_on_an_answer_counts(tmp_path: Path) -> None:
    cast = [vote(1, rating="up"), vote(1, client="shop", label="negative"), vote(1, rating="down"), vote(2, index=1, rating="up")]
    (path,) = write_log(tmp_path, cast, kind="feedback")
    with path.open("a", encoding="utf-8") as file:
        file.write('[]\n{"id": "cut')
    found = votes(tmp_path, "tiny")
    assert [(each.answer, each.client, each.rating, each.label) for each in found] == [
        (("classify-0001", 0), "shop", None, "negative"),
        (("classify-0001", 0), "anonymous", "down", None),
        (("classify-0002", 1), "anonymous", "up", None),
    ]
    assert votes(tmp_path, "other") == []


def test_votes_meet_the_text_they_were_on(tmp_path: Path) -> None:
    old = line(3, "旧")
    del old["texts"][0]["masked"]  # by a release that kept no text
    write_log(tmp_path, [line(1, "甲", "乙", labels=["positive", "negative"]), line(2, "丙"), old])
    cast = [vote(1, index=1, rating="up"), vote(2, rating="down"), vote(1, label="negative"), vote(3, rating="up"), vote(9, rating="up")]
    write_log(tmp_path, cast, kind="feedback")
    found = [(each.masked, each.answered, each.label) for each in joined(tmp_path, "tiny", votes(tmp_path, "tiny"))]
    assert found == [("甲", "positive", "negative"), ("乙", "negative", "negative"), ("丙", "positive", None)]


def test_majorities() -> None:
    assert majority(["a", "b", "a"]) == "a" and majority(["a"]) == "a"
    assert majority(["a", "b"]) is None and majority([]) is None and majority(["a", "b", "c", "c", "b"]) is None
