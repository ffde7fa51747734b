"""A gateway that is killed at random moments loses nothing it acknowledged: what is answered is in the log, what is voted is stored."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.kills import Client, compared, killed
from llm_assets.serving.feedback import feedback_folder
from llm_assets.serving.keys import add_key
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.serving.tiny import deploy


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, kills: int) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    deploy(tmp_path, 1)
    outcome = killed(tmp_path, kills, seed, "tiny", add_key(tmp_path, "clients", ["ask", "feedback"], votes_per_day=1_000_000))
    assert outcome.lost == []
    assert outcome.answers > kills and outcome.votes > kills


def test_what_is_lost_is_seen(tmp_path: Path) -> None:
    heard = Client("http://127.0.0.1:1", "tiny", "")
    heard.answers, heard.votes, heard.wrong = ["kept", "gone"], [("kept", "up"), ("kept", "down")], ["500"]
    for folder, lines in (
        (log_folder(tmp_path), [json.dumps({"id": "kept"}), json.dumps({"id": "twice"}), json.dumps({"id": "twice"}), '{"id": "go', '{"id": "g']),
        (feedback_folder(tmp_path), [json.dumps({"id": "kept", "index": 1, "client": "clients", "rating": "down"})]),
    ):
        path = folder / "tiny" / "2026-01-01.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    assert compared(tmp_path, "tiny", 1, [heard]).lost == [
        "a client heard 500",
        f"2 lines of {log_folder(tmp_path)} are unreadable after 1 kills",
        "answer twice is in the log 2 times",
        "answer gone is not in the log",
        "vote ('kept', 'up') is not stored",
    ]
