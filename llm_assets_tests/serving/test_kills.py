"""A gateway that is killed at random moments loses nothing it acknowledged: what is answered is in the log, what is voted is stored."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path

import httpx
import pytest

from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.feedback import feedback_folder, read_votes
from llm_assets.serving.keys import add_key
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import deploy

CLIENTS = 4


class Client(threading.Thread):
    """Asks, votes on each answer, and keeps what was acknowledged, until the gateway dies."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(daemon=True)
        self.url, self.headers = url, {"Authorization": f"Bearer {key}"}
        self.answers: list[str] = []
        self.votes: list[tuple[str, str]] = []  # id and rating
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False, timeout=10) as client:
            try:
                while not self.wrong:
                    self._ask_and_vote(client)
            except httpx.TransportError:
                return

    def _ask_and_vote(self, client: httpx.Client) -> None:
        asked = client.post("/v1/classify", json={"model": "tiny", "input": ["good", "bad"]})
        if asked.status_code != 200:
            self.wrong.append(asked.text)
            return
        self.answers.append(asked.json()["id"])
        rating = ("up", "down")[len(self.answers) % 2]
        voted = client.post("/v1/feedback", json={"id": self.answers[-1], "index": 1, "rating": rating})
        if voted.status_code != 200:
            self.wrong.append(voted.text)
            return
        self.votes.append((self.answers[-1], rating))


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, kills: int) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    moments = random.Random(seed)
    deploy(tmp_path, 1)
    key = add_key(tmp_path, "clients", ["ask", "feedback"], votes_per_day=1_000_000)
    clients: list[Client] = []
    for _ in range(kills):
        with gateway(tmp_path) as (client, process):
            fresh = [Client(str(client.base_url), key) for _ in range(CLIENTS)]
            clients += fresh
            for one in fresh:
                one.start()
            eventually(lambda fresh=fresh: any(one.votes or one.wrong for one in fresh))
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
            for one in fresh:
                one.join(10)
                assert not one.is_alive()
    assert not [wrong for one in clients for wrong in one.wrong]
    answers = {answer for one in clients for answer in one.answers}
    votes = {vote for one in clients for vote in one.votes}
    assert len(answers) > kills and len(votes) > kills
    cut = 0
    for folder in (log_folder(tmp_path), feedback_folder(tmp_path)):
        for line in [line for path in dated_files(folder, "tiny") for line in path.read_text().splitlines()]:
            try:
                answers.discard(json.loads(line)["id"]) if folder == log_folder(tmp_path) else json.loads(line)
            except ValueError:
                cut += 1
    assert not answers and cut <= 2 * kills
    assert votes <= {(vote["id"], vote["rating"]) for vote in read_votes(tmp_path, "tiny")}
