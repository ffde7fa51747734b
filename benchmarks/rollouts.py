"""How fast a bad release is gone, and how often a good one is sent back."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.result import Result

CLIENTS = 8
BY_HAND, BY_ITSELF = 1.0, 5.0  # seconds, targets
RETURNS = 5  # rollbacks by hand, to and fro
SIMULATED, REQUESTS = 1000, 1000  # rollouts, and requests of each


@dataclass(frozen=True)
class Heard:
    """One answered request."""

    began: float  # unix time
    ended: float
    status: int
    release: str | None


def rollback(preset: str, home: Path) -> Result:
    """Seconds until the stable release answers everything again, with 8 clients that never pause, of the quantized model in --home.

    By hand: from the call of what `llm-assets rollback` calls to the last request that the other release answers, to and fro. By itself:
    from the first answer of a release with its labels turned around, in a canary of 25%, to the last request that it answers.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.evaluation.predictions import Examples
    from llm_assets.serving.rollback import roll_back_by_hand
    from llm_assets.serving.rollout import Plan
    from llm_assets.serving.state import proven, write_desired

    model, texts = llm_assets.open("reviews", "quantized_model"), Examples.read(llm_assets.open("reviews", "evaluation_sets")).of("test").texts
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for number in (1, 2):
            write_desired(root, "reviews", planted(root, number, model.directory))
        with _gateway(root) as port, _load(port, texts) as heard:
            by_hand = []
            for number in range(RETURNS):
                to, began = f"reviews-{1 + number % 2}", time.time()
                roll_back_by_hand(root, "reviews", to, "benchmark", "")
                count = len(heard)
                until(lambda: len(heard) > count + 10 * CLIENTS)  # noqa: B023
                by_hand.append(max((answer.began for answer in heard if answer.release != to and answer.began > began), default=began) - began)
            bad = planted(root, 3, model.directory, turned=True)
            plan = Plan(steps=(25.0, 100.0), expected_disagreement=0.02)
            write_desired(root, "reviews", bad, proven(root, "reviews"), plan)
            until(lambda: _chain(port)["state"] == "rolled_back")
            count = len(heard)
            until(lambda: len(heard) > count + 10 * CLIENTS)
        wrong = [answer for answer in heard if answer.release == "reviews-3"]
        by_itself = max(answer.began for answer in wrong) - min(answer.ended for answer in wrong)
        failed = sum(answer.status != 200 for answer in heard)
    listed = ", ".join(f"{seconds:.2f}" for seconds in by_hand)
    print(f"by hand: {listed} s; by itself: {by_itself:.2f} s after its first answer, {len(wrong)} answers; {failed} of {len(heard)} requests failed")
    holds = max(by_hand) <= BY_HAND and by_itself <= BY_ITSELF and not failed
    target = f"<= {BY_HAND:g}, and {BY_ITSELF:g} by itself ({by_itself:.2f}), no request failed"
    return Result("rollback", round(max(by_hand), 2), "s, the slowest of 5 by hand", target, holds)


def canary(preset: str, home: Path) -> Result:
    """How many of 1,000 simulated rollouts go back within 1,000 requests, by the true share of bad ones over the limit."""
    from llm_assets.serving.rollout import Plan, exceeds
    from llm_assets.serving.windows import LENGTH

    judged, shares, first = cache(exceeds), {}, Plan().minimum_requests

    def goes_back(draw: random.Random, true: float, limit: float) -> int | None:
        """The request after which one rollout goes back."""
        newest: deque[bool] = deque(maxlen=LENGTH)
        bad = 0
        for number in range(1, REQUESTS + 1):
            bad -= len(newest) == LENGTH and newest[0]
            newest.append(draw.random() < true)
            bad += newest[-1]
            if len(newest) >= first and judged(bad, len(newest), limit):
                return number
        return None

    print(f"{'limit':>6}{'true share':>12}{'sent back':>11}{'after, median':>15}")
    for limit in (0.02, 0.12):
        for times in (0.5, 1.0, 2.0, 5.0):
            draw = random.Random(17)
            ends = sorted(end for _ in range(SIMULATED) if (end := goes_back(draw, times * limit, limit)))
            shares[limit, times] = len(ends) / SIMULATED
            after = f"{ends[len(ends) // 2]}" if ends else ""
            print(f"{limit:>6.0%}{times * limit:>12.1%}{shares[limit, times]:>11.1%}{after:>15}", flush=True)
    false = max(share for (_, times), share in shares.items() if times == 0.5)
    found = min(share for (_, times), share in shares.items() if times == 5.0)
    return Result(
        "canary", false, "of good releases sent back", f"<= 0.01 at half a limit, and 1 at five times ({found:g})", false <= 0.01 and found == 1
    )


def planted(root: Path, number: int, source: Path, turned: bool = False, chain: str = "reviews") -> dict[str, Any]:
    """A copy of a model as a release in the journal; ``turned`` around it answers the opposite, and loads and probes as well."""
    import onnx

    from llm_assets.serving.engine import FILES
    from llm_assets.serving.releases import release_journal
    from llm_assets.store.files import sha256_file

    folder = root / "artifacts" / "quantized_model" / f"model{number}"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(source / name, folder / name)
    if turned:
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        settings["labels"].reverse()
        (folder / "serving.json").write_text(json.dumps(settings), encoding="utf-8")
        graph = onnx.load(folder / "model.onnx")
        for note in graph.metadata_props:
            note.value = json.dumps(settings["labels"]) if note.key == "labels" else note.value
        onnx.save(graph, folder / "model.onnx")
    record = {
        "release": f"{chain}-{number}",
        "number": number,
        "quantized_model": f"model{number}",
        "directory": str(folder.relative_to(root)),
        "files": {name: sha256_file(folder / name) for name in FILES},
    }
    release_journal(root, chain).append({"trial": False, "verdicts": [], "record": record})
    return record


@contextmanager
def _gateway(root: Path) -> Iterator[int]:
    """The port of a gateway that serves."""
    from llm_assets.serving.state import gateway_state

    process = subprocess.Popen([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(root)], stdout=subprocess.DEVNULL)
    try:
        until(lambda: (state := gateway_state(root)) and state["chains"].get("reviews", {}).get("live"))
        state = gateway_state(root)
        assert state
        yield int(state["port"])
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _load(port: int, texts: list[str]) -> Iterator[list[Heard]]:
    """What clients hear that ask without a pause."""
    heard: list[Heard] = []
    done = threading.Event()

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for index in range(number, sys.maxsize, CLIENTS):
            if done.is_set():
                break
            body, began = json.dumps({"model": "reviews", "input": texts[index % len(texts)]}), time.time()
            connection.request("POST", "/v1/classify", body.encode(), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.load(response)
            heard.append(Heard(began, time.time(), response.status, answer.get("release")))
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(heard) > 20 * CLIENTS)
        yield heard
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _chain(port: int) -> Mapping[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/readyz")
    chain: Mapping[str, Any] = json.load(connection.getresponse())["chains"]["reviews"]
    connection.close()
    return chain


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return once the condition holds. Raises ``TimeoutError`` when it does not in so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true after {seconds:g} s")
        time.sleep(0.02)
