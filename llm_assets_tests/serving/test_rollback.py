"""Rolling back by hand, with a gateway in a process of its own and without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llm_assets.serving.events import read_events
from llm_assets.serving.releases import ReleaseError, release_journal, standing
from llm_assets.serving.rollback import roll_back_by_hand
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import desired_path, read_desired, write_desired
from llm_assets.store.files import write_json
from llm_assets_tests.running import llm_assets
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import release, roll_out

Answers = list[tuple[str, str] | str]  # release and label, or what a refusal said


@contextmanager
def load(url: str, clients: int = 3) -> Iterator[Answers]:
    """Clients that ask without a pause; what they heard."""
    heard: Answers = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            while not done.is_set():
                response = client.post("/v1/classify", json={"model": "tiny", "input": ["good", "good good"]})
                body = response.json()
                heard.append((body["release"], body["data"][0]["label"]) if response.status_code == 200 else response.text)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(heard) > 20)
        yield heard
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_rollback_under_load_loses_no_request(tmp_path: Path) -> None:
    write_desired(tmp_path, "tiny", release(tmp_path, 1))
    write_desired(tmp_path, "tiny", release(tmp_path, 2, sign=-1))
    with gateway(tmp_path) as (client, _), load(str(client.base_url)) as heard:
        assert heard[-1] == ("tiny-2", "negative")
        found = roll_back_by_hand(tmp_path, "tiny", "", by="Ann", note="it answers the opposite")
        assert (found["state"], found["release"], found["rolled_back_from"]) == ("live", "tiny-1", "tiny-2")
        count = len(heard)
        eventually(lambda: len(heard) > count + 20)
    assert set(heard) == {("tiny-1", "positive"), ("tiny-2", "negative")}  # every request was answered by one or the other
    assert heard[count:].count(("tiny-2", "negative")) <= 3  # one a client was on its way
    [event] = read_events(tmp_path, "tiny")
    assert (event["kind"], event["release"], event["to"]) == ("rollback", "tiny-2", "tiny-1")
    assert event["message"] == "Ann rolled tiny back to tiny-1 from tiny-2: it answers the opposite"


def test_a_canary_is_ended_by_hand(tmp_path: Path) -> None:
    write_desired(tmp_path, "tiny", release(tmp_path, 1))
    roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), step_seconds=1e9), sign=-1)
    with gateway(tmp_path) as (client, _), load(str(client.base_url)) as heard:
        eventually(lambda: len(set(heard)) == 2)
        assert roll_back_by_hand(tmp_path, "tiny", "", by="Ann", note="")["state"] == "live"
        status = eventually(lambda: (chain := client.get("/readyz").json()["chains"]["tiny"])["state"] == "full" and chain)
        assert isinstance(status, dict) and status["split"] == {"tiny-1": 100.0} and status["error"] is None
    assert set(heard) == {("tiny-1", "positive"), ("tiny-2", "negative")}
    known = standing(release_journal(tmp_path, "tiny"))
    assert known.champion and known.champion["release"] == "tiny-1" and list(known.withdrawn) == ["tiny-2"]


def test_a_damaged_release_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    release(tmp_path, 1)
    write_desired(tmp_path, "tiny", release(tmp_path, 2))
    (tmp_path / "artifacts" / "quantized_model" / "tiny1" / "tokenizer.json").write_text("{}")
    before = desired_path(tmp_path, "tiny").read_text(), list(release_journal(tmp_path, "tiny").entries())
    with pytest.raises(ReleaseError, match=r"tokenizer\.json is not the file that was released"):
        roll_back_by_hand(tmp_path, "tiny", "", by="Ann", note="")
    assert (desired_path(tmp_path, "tiny").read_text(), list(release_journal(tmp_path, "tiny").entries())) == before
    assert read_events(tmp_path, "tiny") == []


def test_the_command_says_what_it_did_and_what_there_is(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_desired(tmp_path, "imdb", release(tmp_path, number, chain="imdb"))
    aliases = {"candidate": "imdb-1", "champion": "imdb-1", "previous": None}
    write_json(tmp_path / "mlflow" / "registry-imdb.json", {"release": "imdb-1", "aliases": aliases})  # MLflow, slow to start, has nothing to learn
    unknown = llm_assets(tmp_path, "rollback", "imdb", "--to", "imdb-9")
    assert unknown.returncode == 1 and unknown.stderr.strip() == "imdb has no release imdb-9 to go back to; there are: imdb-1, imdb-2, imdb-3"
    done = llm_assets(tmp_path, "rollback", "imdb", "--to", "imdb-1", "--by", "Ann", "--note", "drift")
    assert done.returncode == 0, done.stderr
    assert "imdb-1 is the champion of imdb: no gateway runs on this data root" in done.stdout
    assert read_desired(desired_path(tmp_path, "imdb")).release == "imdb-1"
    known = standing(release_journal(tmp_path, "imdb"))
    assert known.champion and (known.champion["approved_by"], known.champion["note"]) == ("Ann", "drift")
    nothing = llm_assets(tmp_path, "approve", "imdb", "--by", "Ann")
    assert nothing.returncode == 1 and "no release of imdb waits for approval" in nothing.stderr
