from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llm_assets.links.making import judge
from llm_assets.operation import features, replies, traffic
from llm_assets.operation.champion import released
from llm_assets.operation.drift import LINK, DriftConfig, drift
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.events import read_events
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.operation.released import office, release, release_talking, texts
from llm_assets_tests.operation.traffic import line, reply, vote, write_log

OF_LABELS = {feature.name for feature in features.FEATURES} - {"answer_length"}
CONFIG = DriftConfig(window=100, minimum=50, false_alarms=0.05)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "RESAMPLES", 400)


def ask(home: Path, asked: Sequence[str], labels: Iterable[str] = (), first: int = 0, **fields: object) -> None:
    """A request a text, read into the day's table."""
    named = list(labels) or ["positive" if number % 2 else "negative" for number in range(len(asked))]
    write_log(home, [line(first + number, text, labels=[label], **fields) for number, (text, label) in enumerate(zip(asked, named, strict=True))])
    for path in dated_files(log_folder(home), "tiny"):
        traffic.write_day(path, traffic.traffic_path(home, "tiny", path.stem))


def look(home: Path, config: DriftConfig = CONFIG) -> dict:
    working = office(home, "drift")
    acted = drift(working, config)
    working.journal.append({"trial": False, "record": dict(acted.record)})
    return dict(acted.record)


def test_traffic_like_the_examples_is_no_drift_and_hotels_are(tmp_path: Path) -> None:
    release(tmp_path, texts(600, 1))
    ask(tmp_path, texts(100, 2))
    calm = look(tmp_path)
    assert calm["judged"] and calm["drifted"] == [] and calm["texts"] == 100 and set(calm["features"]) == OF_LABELS
    assert judge(LINK, calm, {})[0].passed and read_events(tmp_path, "tiny") == []
    assert calm["estimated_accuracy"] == pytest.approx(0.9)  # as sure as on the validation split
    ask(tmp_path, texts(100, 3, ("room", "dirty", "breakfast", "good"), 20), ["negative"] * 100, first=200)
    found = look(tmp_path)
    assert set(found["drifted"]) >= {"vocabulary", "length", "embedding", "prediction"} and "confidence" not in found["drifted"]
    (verdict,) = judge(LINK, found, {})
    assert not verdict.passed and not verdict.blocking and "vocabulary" in verdict.description
    look(tmp_path)
    (event,) = read_events(tmp_path, "tiny")  # drift that goes on is announced once
    assert (event["kind"], event["release"]) == ("drift", "tiny-1") and "vocabulary" in event["message"]


def test_a_canarys_few_answers_are_not_mixed_in(tmp_path: Path) -> None:
    release(tmp_path, texts(300, 1))
    ask(tmp_path, texts(60, 2))
    ask(tmp_path, texts(10, 3, ("room", "dirty")), ["negative"] * 10, first=100, release="tiny-2")
    calm = look(tmp_path)
    assert (calm["release"], calm["texts"], calm["drifted"]) == ("tiny-1", 50, [])


def test_the_page_names_what_moved_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    release(tmp_path, texts(300, 1))
    ask(tmp_path, texts(60, 3, ("hotel", "bad")), ["negative"] * 60)
    look(tmp_path)
    page = (tmp_path / "acts" / "tiny" / "drift" / "run" / "pages" / "drift.html").read_text(encoding="utf-8")
    assert "ho</td><td>0.00%" in page and "drifted" in page and "negative" in page and "estimated from the probabilities: 90.0%" in page
    assert "<script" not in page and "http" not in page


def test_the_profile_is_made_once_a_model_and_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(tmp_path, texts(300, 1))
    ask(tmp_path, texts(60, 2))
    first = look(tmp_path)
    assert first["texts"] == 50  # the largest window with a threshold that 60 texts fill
    monkeypatch.setattr("llm_assets.operation.profile.make_profile", lambda *_: pytest.fail("made again"))
    assert look(tmp_path) == first
    assert len(list((tmp_path / "serving" / "drift").glob("m1-*.json"))) == 1
    with pytest.raises(pytest.fail.Exception):
        look(tmp_path, DriftConfig(window=100, minimum=50, false_alarms=0.06))


def test_why_nothing_is_said(tmp_path: Path) -> None:
    assert "no traffic" in look(tmp_path)["reason"]
    ask(tmp_path, texts(20, 2))
    assert "knows no tiny-1" in look(tmp_path)["reason"]
    release(tmp_path, texts(90, 1))
    assert "90 texts and 200 answers to compare with, at least 100" in look(tmp_path)["reason"]
    release(tmp_path, texts(300, 1), number=2)
    ask(tmp_path, texts(20, 2), first=100, release="tiny-2")
    said = look(tmp_path)
    assert said["reason"] == "20 texts answered by tiny-2, 50 are needed" and not said["judged"] and judge(LINK, said, {})[0].passed


def test_accuracy_is_measured_on_what_users_voted_on(tmp_path: Path) -> None:
    release(tmp_path, texts(300, 1))
    ask(tmp_path, texts(60, 2))
    assert look(tmp_path)["feedback"] is None
    cast = [
        vote(20, rating="up"),
        vote(21, label="negative"),  # answered positive
        vote(22, rating="down"),
        vote(23, rating="up"), vote(23, rating="down", client="other"),  # a tie says nothing
        vote(24, rating="down"), vote(24, rating="up"),  # the client's last word counts
        vote(1, rating="up"),  # before the window of the newest 50
    ]  # fmt: skip
    write_log(tmp_path, cast, kind="feedback")
    assert look(tmp_path)["feedback"] == {"answers": 4, "accuracy": 0.5}


def test_numbers_drift_too_and_have_no_confidence() -> None:
    from llm_assets.operation.profile import Answers, make_profile

    numbers = [str(n / 10) for n in range(100)]
    profile = make_profile(texts(200, 1), Answers(numbers, [None] * 100), numbers, "regression", [50], 0.05)
    assert profile.calibration is None and set(profile.thresholds) == OF_LABELS - {"confidence"}


def test_impossible_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ValidationError, match="minimum is 200: at most window, which is 100"):
        DriftConfig(window=100, minimum=200)
    with pytest.raises(ValidationError, match=r"false_alarms is 0\.001"):
        DriftConfig(false_alarms=0.001)
    assert DriftConfig().sizes == [100, 200, 400, 500] and DriftConfig(minimum=500).sizes == [500]


@pytest.fixture
def talking(tmp_path: Path) -> list[tuple[str, str]]:
    """A released decoder, and what it replies to the validation conversations."""
    said = texts(600, 1)
    release_talking(tmp_path, [said[n : n + 2] if n % 3 else said[n : n + 4] for n in range(0, 500)])
    found = released(tmp_path, "tiny")
    assert found is not None
    return replies.validation_replies(found)


def talk(home: Path, asked: Sequence[str], answered: Sequence[tuple[str, str]], first: int = 0, **fields: Any) -> None:
    lines = enumerate(zip(asked, answered, strict=True), first)
    write_log(home, [reply(number, text, turn, finish=finish, **fields) for number, (turn, (text, finish)) in lines])
    for path in dated_files(log_folder(home), "tiny"):
        traffic.write_day(path, traffic.traffic_path(home, "tiny", path.stem))


def test_conversations_like_those_learned_are_no_drift_and_others_are(tmp_path: Path, talking: list[tuple[str, str]]) -> None:
    assert len(talking) == 10 and {finish for _, finish in talking} <= {"stop", "length"}
    usual = [*talking, *random.Random(1).choices(talking, k=90)]
    talk(tmp_path, texts(100, 2), usual)
    calm = look(tmp_path)
    assert calm["judged"] and calm["drifted"] == [] and calm["texts"] == 100 and calm["estimated_accuracy"] is None
    assert set(calm["features"]) == {feature.name for feature in features.FEATURES} - {"confidence"}
    talk(tmp_path, texts(100, 3, ("room", "dirty", "breakfast", "good"), 20), usual, first=200)
    found = look(tmp_path)
    assert set(found["drifted"]) >= {"vocabulary", "length", "embedding"} and not {"prediction", "answer_length"} & set(found["drifted"])
    talk(tmp_path, texts(100, 4), [("x" * 900, "broken off")] * 100, first=400)
    found = look(tmp_path)
    assert set(found["drifted"]) == {"prediction", "answer_length"}
    assert not judge(LINK, found, {})[0].passed and len(read_events(tmp_path, "tiny")) == 1
    page = (tmp_path / "acts" / "tiny" / "drift" / "run" / "pages" / "drift.html").read_text(encoding="utf-8")
    assert "How replies ended" in page and "broken off" in page and "100.00%" in page


def test_votes_on_replies_are_their_measured_accuracy(tmp_path: Path, talking: list[tuple[str, str]]) -> None:
    talk(tmp_path, texts(60, 2), [*talking] * 6)
    cast = [vote(20, rating="up"), vote(21, rating="down"), vote(22, label="better"), vote(23, rating="up"), vote(24, comment="hm")]
    write_log(tmp_path, [{**each, "id": f"chatcmpl-{each['id'][-4:]}"} for each in cast], kind="feedback")
    assert look(tmp_path)["feedback"] == {"answers": 4, "accuracy": 0.5}


def test_an_empty_reply_is_not_called_right_by_a_thumb_down(tmp_path: Path, talking: list[tuple[str, str]]) -> None:
    talk(tmp_path, texts(60, 2), [("", "stop")] * 60)
    write_log(tmp_path, [{**vote(20, rating="down"), "id": f"chatcmpl-{vote(20)['id'][-4:]}"}], kind="feedback")
    assert look(tmp_path)["feedback"] == {"answers": 1, "accuracy": 0.0}


def test_what_an_adapter_was_asked_is_no_drift_of_the_model(tmp_path: Path, talking: list[tuple[str, str]]) -> None:
    usual = [*talking] * 10
    talk(tmp_path, texts(100, 2), usual)
    talk(tmp_path, texts(100, 3, ("room", "dirty", "breakfast", "good"), 20), [("x" * 900, "broken off")] * 100, first=200, adapter="translation")
    found = look(tmp_path)
    assert found["drifted"] == [] and found["texts"] == 100


def test_rows_of_before_replies_stood_beside_their_turns_are_passed_over(tmp_path: Path, talking: list[tuple[str, str]]) -> None:
    talk(tmp_path, texts(60, 2), [*talking] * 6)
    (path,) = traffic.traffic_path(tmp_path, "tiny", "x").parent.glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["answer", "answer_characters"]), path)
    assert "no traffic" in look(tmp_path)["reason"]
