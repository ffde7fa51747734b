"""Kills a gateway at random moments under load, again and again, and looks for what it had acknowledged and lost."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.gateways import CHAIN, gateway, release, until
from benchmarks.result import Result

KILLS = 1000
AT_ONCE = 3  # gateways, each over a data root of its own: a start waits for the disk now and then
CLIENTS = 4
LATEST = 0.3  # seconds after the first acknowledged vote within which the kill falls
TEXTS = ["好", "差"]


def kills(preset: str, home: Path, amount: int = KILLS) -> Result:
    """What is lost of 1,000 kills (--amount) of the gateway at random moments under load, of the quantized model in --home.

    Four clients ask and vote on what they hear until the gateway dies by SIGKILL, up to 0.3 s after the first vote, every other time
    together with the process that writes its log; then it starts again over the same files. In the end every answer that a client heard
    is looked for in the request log, every acknowledged vote in the feedback, and every line is read: one kill may cut off one line of
    each, which nobody was told of.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.serving.keys import add_key
    from llm_assets.serving.state import write_desired

    model, seed, began = llm_assets.open(CHAIN, "quantized_model"), time.time_ns(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        roots = [Path(temporary) / str(number) for number in range(AT_ONCE)]
        for root in roots:
            write_desired(root, CHAIN, release(root, 1, model.directory))
        keys = [add_key(root, "benchmark", ["ask", "feedback"], votes_per_day=10**9) for root in roots]  # anonymous ones may vote 1,000 times
        with ThreadPoolExecutor(AT_ONCE) as executor:
            counts = [amount // AT_ONCE + (number < amount % AT_ONCE) for number in range(AT_ONCE)]
            outcomes = list(executor.map(killed, roots, counts, range(seed, seed + AT_ONCE), [CHAIN] * AT_ONCE, keys))
    answers, votes, cut = (sum(getattr(one, name) for one in outcomes) for name in ("answers", "votes", "cut"))
    lost = [one for outcome in outcomes for one in outcome.lost]
    print(f"seed {seed}; {amount} kills in {time.monotonic() - began:.0f} s: {answers} answers and {votes} votes acknowledged, {cut} lines cut off")
    for line in lost[:20]:
        print(f"  lost: {line}")
    return Result("kills", len(lost), f"acknowledged and lost, or wrong, in {amount} kills", "0", not lost)


@dataclass
class Outcome:
    """What was acknowledged, and what became of it."""

    answers: int = 0
    votes: int = 0
    cut: int = 0  # lines that are no JSON
    lost: list[str] = field(default_factory=list)  # in words


def killed(root: Path, count: int, seed: int, chain: str = CHAIN, key: str = "") -> Outcome:
    """Start the gateway of a data root and kill it under load, so many times; then compare its files with what its clients heard.

    At last it is started and ended in peace, which has the last requests written. ``key`` is for a data root that asks for one. The
    kills' moments follow from the seed.
    """
    import psutil

    moments, clients = random.Random(seed), list[Client]()
    for number in range(count):
        with gateway(root, chain) as (url, process):
            fresh = [Client(url, chain, key) for _ in range(CLIENTS)]
            clients += fresh
            for client in fresh:
                client.start()
            until(lambda fresh=fresh: any(client.votes or client.wrong for client in fresh))  # type: ignore[misc]
            beside = psutil.Process(process.pid).children() if number % 2 else []
            time.sleep(moments.uniform(0.0, LATEST))
            process.send_signal(signal.SIGKILL)
            for child in beside:
                with suppress(psutil.NoSuchProcess):  # it ends with the gateway
                    child.kill()
            for client in fresh:
                client.join(15)
    with gateway(root, chain):
        pass
    return compared(root, chain, count, clients)


class Client(threading.Thread):
    """Asks, votes on each answer, and keeps what was acknowledged, until the gateway dies."""

    def __init__(self, url: str, chain: str, key: str) -> None:
        super().__init__(daemon=True)
        self._address, self._chain = urlsplit(url).netloc, chain
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self.answers: list[str] = []
        self.votes: list[tuple[str, str]] = []  # id and rating
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until the gateway dies, or says something wrong."""
        connection = http.client.HTTPConnection(self._address, timeout=10)
        try:
            while not self.wrong:
                self._ask_and_vote(connection)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _ask_and_vote(self, connection: http.client.HTTPConnection) -> None:
        asked = self._post(connection, "/v1/classify", {"model": self._chain, "input": TEXTS})
        if asked is None:
            return
        self.answers.append(asked["id"])
        rating = ("up", "down")[len(self.answers) % 2]
        if self._post(connection, "/v1/feedback", {"id": asked["id"], "index": 1, "rating": rating}) is not None:
            self.votes.append((asked["id"], rating))

    def _post(self, connection: http.client.HTTPConnection, path: str, body: dict[str, object]) -> dict[str, str] | None:
        connection.request("POST", path, json.dumps(body), self._headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != http.HTTPStatus.OK:
            self.wrong.append(text.decode(errors="replace"))
            return None
        answer: dict[str, str] = json.loads(text)
        return answer


def compared(root: Path, chain: str, count: int, clients: Sequence[Client]) -> Outcome:
    """What clients heard of a gateway that was killed ``count`` times, held against its request log and its feedback."""
    from llm_assets.serving.feedback import feedback_folder, read_votes
    from llm_assets.serving.recorder import settle
    from llm_assets.serving.request_log import log_folder

    settle(log_folder(root))
    outcome = Outcome(sum(len(client.answers) for client in clients), sum(len(client.votes) for client in clients))
    outcome.lost += [f"a client heard {wrong}" for client in clients for wrong in client.wrong]
    outcome.lost += ["a client hung" for client in clients if client.is_alive()]
    logged = Counter[str]()
    for folder in (log_folder(root), feedback_folder(root)):
        cut = 0
        for line in _lines(folder, chain):
            try:
                identity = json.loads(line)["id"]
            except ValueError:
                cut += 1
                continue
            if folder == log_folder(root):
                logged[identity] += 1
        if cut > count:
            outcome.lost.append(f"{cut} lines of {folder} are unreadable after {count} kills")
        outcome.cut += cut
    outcome.lost += [f"answer {answer} is in the log {times} times" for answer, times in logged.items() if times > 1]
    stored = {(vote["id"], vote["rating"]) for vote in read_votes(root, chain)}
    outcome.lost += [f"answer {answer} is not in the log" for client in clients for answer in client.answers if answer not in logged]
    outcome.lost += [f"vote {vote} is not stored" for client in clients for vote in client.votes if vote not in stored]
    return outcome


def _lines(folder: Path, chain: str) -> Iterator[bytes]:
    from llm_assets.serving.dated_files import dated_files

    for path in dated_files(folder, chain):
        with path.open("rb") as file:
            yield from file
