"""Wrong votes taken back: what no longer counts, what stays, and who said why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.corpus.batches import batch_files, batch_folder, read_batches, withdrawals, write_batch
from llm_assets.operation.feedback_batch import FeedbackBatchConfig, feedback_batch
from llm_assets.operation.votes import votes
from llm_assets.operation.withdrawal import Wanted, WithdrawalError, plan_withdrawal, withdraw
from llm_assets.serving.events import read_events
from llm_assets.store.store import Store
from llm_assets_tests.operation.released import office
from llm_assets_tests.operation.traffic import NOON, line, reply, vote, write_log

FLOOD = Wanted(client="flood")
TEXTS = ("房间很脏", "早餐不错", "位置偏僻", "前台热情")


def collect(home: Path) -> dict[str, Any]:
    return dict(feedback_batch(office(home, "feedback_batch"), FeedbackBatchConfig(minimum=1, client_share=1)).record)


def say(home: Path, *cast: dict[str, Any]) -> None:
    write_log(home, cast, kind="feedback")


def learned(home: Path) -> list[tuple[str, str]]:
    return [(row["text"], row["label"]) for row in read_batches(batch_folder(home, "tiny")).to_pylist()]


def texts_of(rows: Iterable[Any]) -> set[str]:
    return {row["text"] for row in rows}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Four texts called negative by one client, the first by another one too, all in one batch."""
    write_log(tmp_path, [line(n, text) for n, text in enumerate(TEXTS)])
    say(tmp_path, vote(0, label="negative", client="ann"), *(vote(n, label="negative", client="flood") for n in range(4)))
    assert collect(tmp_path)["rows"] == 4
    return tmp_path


def test_what_rests_on_a_clients_word_goes_and_what_others_said_too_stays(home: Path) -> None:
    (path,) = batch_files(batch_folder(home, "tiny"))
    content = path.read_bytes()
    planned = plan_withdrawal(home, "tiny", FLOOD)
    assert len(planned.votes) == 4 and planned.left == {path.stem: 1} and texts_of(planned.rows[path.stem]) == set(TEXTS[1:])
    assert len(learned(home)) == 4 and len(votes(home, "tiny")) == 5  # a plan changes nothing
    assert withdraw(Store(home), "tiny", FLOOD, "Ada", "a script, see 13812345678") == planned
    assert learned(home) == [(TEXTS[0], "negative")] and [each.client for each in votes(home, "tiny")] == ["ann"]
    assert path.read_bytes() == content  # nothing is deleted
    (entry,) = withdrawals(batch_folder(home, "tiny")).entries()
    assert (entry["by"], entry["reason"], entry["asked"]) == ("Ada", "a script, see [PHONE]", {"client": "flood"})
    assert len(entry["votes"]) == 4 and len(entry["rows"]) == 3 and entry["at"]
    (event,) = read_events(home, "tiny")
    assert event["kind"] == "withdrawal" and event["message"] == (
        "Ada withdrew votes of flood (4 votes, 3 labelled texts): a script, see [PHONE]"
    )  # fmt: skip


def test_what_was_withdrawn_comes_back_only_by_a_new_vote(home: Path) -> None:
    withdraw(Store(home), "tiny", FLOOD, "Ada", "a script")
    assert collect(home)["rows"] == 0
    say(
        home,
        vote(1, label="positive", client="ann", at=NOON + timedelta(hours=1)),
        vote(2, label="positive", client="flood", at=NOON + timedelta(hours=1)),
    )
    assert collect(home)["rows"] == 2
    assert learned(home) == [(TEXTS[0], "negative"), (TEXTS[1], "positive"), (TEXTS[2], "positive")]


def test_a_row_goes_when_the_majority_of_the_votes_left_says_otherwise(home: Path) -> None:
    say(home, vote(3, label="positive", client="bob"), vote(0, label="positive", client="bob"))
    planned = plan_withdrawal(home, "tiny", FLOOD)
    assert texts_of(row for rows in planned.rows.values() for row in rows) == set(TEXTS)  # of the first ann and bob are a tie


def test_a_span_of_time_is_withdrawn_whoever_voted(home: Path) -> None:
    say(home, vote(0, label="positive", client="late", at=NOON + timedelta(days=1)))
    span = Wanted(since=NOON + timedelta(minutes=5, seconds=1), until=NOON + timedelta(minutes=5, seconds=3))
    planned = plan_withdrawal(home, "tiny", span)
    assert [each.answer[0][-1] for each in planned.votes] == ["1", "2"]
    assert {text for rows in planned.rows.values() for text in texts_of(rows)} == {TEXTS[1], TEXTS[2]}


def test_a_batch_goes_as_a_whole_with_the_votes_for_its_labels_by_whatever_answer(home: Path) -> None:
    (path,) = batch_files(batch_folder(home, "tiny"))
    write_log(home, [line(7, f"{TEXTS[1]}！")])
    say(home, vote(7, label="negative", client="again"), vote(7, label="positive", client="ann"), vote(0, label="positive", client="ann"))
    done = withdraw(Store(home), "tiny", Wanted(batch=path.stem[:6]), "Ada", "wrong")
    assert done.left == {path.stem: 0} and {each.client for each in done.votes} == {"flood", "again"}
    assert learned(home) == []
    collect(home)
    assert learned(home) == [(TEXTS[0], "positive"), (f"{TEXTS[1]}!", "positive")]


def test_labels_of_annotators_go_by_their_batch_alone(home: Path) -> None:
    (votes_batch,) = batch_files(batch_folder(home, "tiny"))
    row = {**read_batches(batch_folder(home, "tiny")).to_pylist()[2], "provenance": "annotation", "at": "2026-11-21"}
    batch = write_batch(batch_folder(home, "tiny"), [row])
    assert list(plan_withdrawal(home, "tiny", FLOOD).rows) == [votes_batch.stem]
    assert plan_withdrawal(home, "tiny", Wanted(batch=batch.stem)).texts == 1


def test_where_the_log_is_gone_a_row_rests_on_its_own_answer(home: Path) -> None:
    for path in (home / "serving" / "log" / "tiny").glob("*.jsonl"):
        path.unlink()
    assert plan_withdrawal(home, "tiny", FLOOD).texts == 4  # that ann said so of the first too cannot be known any more
    (batch,) = batch_files(batch_folder(home, "tiny"))
    assert len(plan_withdrawal(home, "tiny", Wanted(batch=batch.stem)).votes) == 5


def test_a_withdrawn_row_stays_so_in_the_batch_that_erasing_another_one_writes(home: Path) -> None:
    withdraw(Store(home), "tiny", FLOOD, "Ada", "a script")
    (path,) = batch_files(batch_folder(home, "tiny"))
    write_batch(path.parent, [row for row in _all_rows(path) if row["text"] != TEXTS[3]])
    path.unlink()
    assert learned(home) == [(TEXTS[0], "negative")]


def _all_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("wanted", "reason", "said"),
    [
        (Wanted(), "wrong", "say what is wrong"),
        (Wanted(batch="a", client="flood"), "wrong", "say what is wrong"),
        (Wanted(batch="zzz"), "wrong", "0 batches of tiny begin with zzz"),
        (Wanted(client="nobody"), "wrong", "votes of nobody: tiny has none that count"),
        (FLOOD, " ", "no reason is given"),
    ],
)
def test_what_cannot_be_withdrawn_is_said(home: Path, wanted: Wanted, reason: str, said: str) -> None:
    with pytest.raises(WithdrawalError, match=said):
        withdraw(Store(home), "tiny", wanted, "Ada", reason)
    assert len(learned(home)) == 4 and not withdrawals(batch_folder(home, "tiny")).path.exists()


def test_votes_on_replies_are_taken_back_and_no_reply_is_written_down_for_it(tmp_path: Path) -> None:
    """Of two replies to one question and a third that two clients agree on; a thumb down is a vote like the others."""
    write_log(tmp_path, [reply(0, "在", "在吗"), reply(1, "滚", "在吗"), reply(2, "您好", "你好")])
    of = [{"id": f"chatcmpl-{number:04}"} for number in range(3)]
    say(
        tmp_path,
        vote(0, client="flood", rating="down", **of[0]), vote(1, client="ann", rating="down", **of[1]),
        vote(2, client="flood", label="买我", **of[2]), vote(2, client="ann", label="买我", **of[2]),
    )  # fmt: skip
    assert collect(tmp_path)["labels"] == {"corrected": 1, "wrong": 2}
    done = withdraw(Store(tmp_path), "tiny", FLOOD, "Ada", "a script")
    assert len(done.votes) == 2 and done.texts == 1
    kept = read_batches(batch_folder(tmp_path, "tiny")).to_pylist()
    assert [(row["answered"], row["label"]) for row in kept] == [("滚", ""), ("您好", "买我")]
    journal = (batch_folder(tmp_path, "tiny") / "withdrawn.jsonl").read_text(encoding="utf-8")
    assert "买我" not in journal and '"wrong"' in journal
    assert collect(tmp_path)["rows"] == 0
    (path,) = batch_files(batch_folder(tmp_path, "tiny"))
    withdraw(Store(tmp_path), "tiny", Wanted(batch=path.stem), "Ada", "all of it")
    assert learned(tmp_path) == [] and votes(tmp_path, "tiny") == [] and collect(tmp_path)["rows"] == 0
