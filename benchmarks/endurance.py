"""Ten minutes of the gateway near its peak while everything happens that an operator does: releases, canaries, rollbacks, a retraining."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.gateways import CHAIN, chain_of, gateway, release, until
from benchmarks.result import Result
from llm_assets.serving.hold import holding
from llm_assets.serving.services import YIELDING
from llm_assets.serving.supervisor import INTERVAL
from llm_assets.store import guard

LENGTH = 45  # characters of a review
CONNECTIONS = 32
PEAK_ROUNDS, PEAK_SECONDS = 3, 5.0
SHARES, TIMES = (0.8, 0.5), 2.0  # of the peak: what is asked for, and for comparison; target: the p99 beside the quiet one
QUIET, BUSY = 60.0, 600.0  # seconds
STEP = 5.0  # seconds of a canary's step
PAUSE = 10.0  # seconds between two things that an operator does
LOOK = 0.25  # seconds between two of an operator's looks at what came of it

Figures = dict[str, Any]


def endurance(preset: str, home: Path, seconds: float = BUSY) -> Result:
    """The p99 of 10 minutes (--amount, in seconds) at 80% of the peak, beside releases, rollbacks and a retraining, over the quiet one.

    Requests fall due evenly, from a process of their own, and their time counts from then. The peak is that of 32 connections that
    never pause. The quiet p99 is that of the minute (or the tenth, where fewer seconds are asked for) before anything happens. Then, in
    turn: a release of the model in --home goes live at once; another one through a canary of 5% and 25%; a third, with its labels
    turned around, into a canary that goes back by itself; and a rollback by hand. Beside that `llm-assets run reviews --preset tiny`
    makes the whole chain with its training processes, again and again, each time in a new data root, held near the peak as `up` holds
    its runs. What was answered is held against the request log. The same for half as long at 50% of the peak says what a machine with
    room to spare makes of it.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.evaluation.predictions import Examples

    model, texts = llm_assets.open(CHAIN, "quantized_model"), Examples.read(llm_assets.open(CHAIN, "evaluation_sets")).of("test").texts
    bodies = "\n".join(json.dumps({"model": CHAIN, "input": text[:LENGTH]}, ensure_ascii=False) for text in texts[:1000])
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "served"
        operator = Operator(root, model.directory)
        operator.release_at_once()
        with gateway(root) as (url, _):
            operator.url = url
            rounds = [_asked(url, bodies, PEAK_SECONDS) for _ in range(PEAK_ROUNDS)]
            peak = statistics.median(figures["rate"] for figures in rounds)
            print(f"peak {peak:.0f} requests/s at {CONNECTIONS} connections")
            ratios, loads, codes = list[float](), rounds, list[int]()
            for share, length in zip(SHARES, (seconds, seconds / 2), strict=True):
                quiet, busy, retraining = _weathered(operator, bodies, length, share * peak, Path(temporary) / f"{share:g}")
                _told(share, quiet, busy, retraining)
                ratios.append(busy["p99_ms"] / quiet["p99_ms"])
                loads, codes = [*loads, quiet, busy], [*codes, *retraining.codes]
        logged = Counter(_logged(root))
    print(f"done by the operator: {dict(operator.done)}; retrainings ended: {len(codes)}, codes {sorted(set(codes))}")
    heard, failed = (sum(figures[name] for figures in loads) for name in ("answered", "failed"))
    print(f"{heard} requests answered; by the request log {logged.total()}, of {len(logged)} releases")
    whole = heard <= logged.total() <= heard + CONNECTIONS * len(loads)  # each load ends with some on their way
    target = (
        f"<= {TIMES:g} (at {SHARES[1]:.0%} of the peak {ratios[1]:.1f}), no request failed ({failed}), "
        f"each in the log ({whole}), no retraining failed ({sum(map(bool, codes))})"
    )
    holds = ratios[0] <= TIMES and not failed and whole and not any(codes)
    return Result("endurance", round(ratios[0], 2), "times the quiet p99", target, holds)


def _weathered(operator: Operator, bodies: str, seconds: float, rate: float, scratch: Path) -> tuple[Figures, Figures, Retraining]:
    """A quiet time, a busy one, and the retraining beside it."""
    quiet = _asked(operator.url, bodies, min(QUIET, seconds / 4), rate)
    load = _asking(operator.url, bodies, seconds, rate)
    with Retraining(scratch) as retraining:
        operator.work(lambda: load.poll() is None)
    return quiet, json.loads(load.communicate()[0]), retraining


def _told(share: float, quiet: Figures, busy: Figures, retraining: Retraining) -> None:
    for name, figures in (("quiet", quiet), ("busy", busy)):
        rate, half, most, failures = (figures[key] for key in ("rate", "p50_ms", "p99_ms", "failed"))
        print(f"at {share:.0%} of it, {name:<6}{rate:>8.0f} requests/s   p50 {half:>7.1f} ms   p99 {most:>7.1f} ms   {failures} failed")
    print(f"p99 of each 10 s: {', '.join(f'{each:.0f}' for each in busy['slices_p99_ms'])} ms")
    held = retraining.held / max(1, retraining.looks)
    print(f"retrainings beside it made {retraining.links()} links, and were held for {held:.0%} of the time", flush=True)


class Operator:
    """Does in turn what an operator does to a chain in service, and counts it."""

    def __init__(self, root: Path, model: Path) -> None:
        self._root, self._model = root, model
        self._number = 0
        self.url = ""
        self.done: Counter[str] = Counter()
        self._goes_on: Callable[[], bool] = lambda: True

    def work(self, goes_on: Callable[[], bool]) -> None:
        """One thing after another, with pauses between them, while there is load; what ends with the load is not counted."""
        self._goes_on = goes_on
        while True:
            for act in (self.release_at_once, self.canary, self.bad_canary, self.roll_back):
                pause = time.monotonic() + PAUSE
                while time.monotonic() < pause:
                    if not goes_on():
                        return
                    time.sleep(0.1)
                act()
                self.done[act.__name__] += goes_on()

    def release_at_once(self) -> None:
        """A release that answers everything as soon as it is loaded."""
        from llm_assets.serving.state import write_desired

        made = self._made()
        write_desired(self._root, CHAIN, made)
        if self.url:
            self._wait(lambda: chain_of(self.url)["live"] == made["release"])

    def canary(self) -> None:
        """A release that takes over step by step."""
        made = self._rolled_out()
        self._wait(lambda: chain_of(self.url)["live"] == made["release"])

    def bad_canary(self) -> None:
        """A release that answers the opposite, which the gateway rolls back by itself."""
        self._rolled_out(turned=True)
        self._wait(lambda: chain_of(self.url)["state"] == "rolled_back")

    def roll_back(self) -> None:
        """Back to the release before, by hand."""
        from llm_assets.serving.rollback import roll_back_by_hand

        went = roll_back_by_hand(self._root, CHAIN, "", "benchmark", "")
        self._wait(lambda: chain_of(self.url)["live"] == went["release"])

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Until it is true, or there is no load any more, without which no canary takes a step."""
        until(lambda: condition() or not self._goes_on(), interval=LOOK)

    def _made(self, turned: bool = False) -> dict[str, Any]:
        self._number += 1
        return release(self._root, self._number, self._model, turned)

    def _rolled_out(self, turned: bool = False) -> dict[str, Any]:
        from llm_assets.serving.rollout import Plan
        from llm_assets.serving.state import proven, write_desired

        made = self._made(turned)
        plan = Plan(steps=(5.0, 25.0, 100.0), step_seconds=STEP, expected_disagreement=0.02)
        write_desired(self._root, CHAIN, made, proven(self._root, CHAIN), plan)
        return made


class Retraining:
    """Runs of the chain, one after another, in a thread, held as ``up`` does it, while the block lasts."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._train)
        self.codes: list[int] = []  # exit codes of those that ended
        self.looks, self.held = 0, 0  # in all, and those at which they were

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def links(self) -> int:
        """How many were made in all."""
        return len(list(self._scratch.glob("*/artifacts/*/*/manifest.json")))

    def _train(self) -> None:
        while not self._over.is_set():
            variables = {**os.environ, "LLM_ASSETS_HOME": str(self._scratch / f"retraining{len(self.codes)}")}
            command = [sys.executable, guard.__file__, *YIELDING, sys.executable, "-m", "llm_assets.cli", "run", CHAIN, "--preset", "tiny"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, process_group=0, **quiet) as process, holding([process.pid]) as hold:
                while process.poll() is None and not self._over.wait(INTERVAL):
                    hold.step()
                    self.looks, self.held = self.looks + 1, self.held + hold.active
                hold.release()  # then leaving the block cuts the guard's lifeline
            if not self._over.is_set():
                self.codes.append(process.returncode)


def _asked(url: str, bodies: str, seconds: float, rate: float | None = None) -> Figures:
    load = _asking(url, bodies, seconds, rate)
    return dict(json.loads(load.communicate()[0]))


def _asking(url: str, bodies: str, seconds: float, rate: float | None = None) -> subprocess.Popen[str]:
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.load", f"{url}/v1/classify", str(CONNECTIONS), str(seconds)]
    load = subprocess.Popen([*command, *([str(rate)] if rate else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdin
    load.stdin.write(bodies)
    load.stdin.close()
    load.stdin = None
    return load


def _logged(root: Path) -> Iterator[str]:
    """The release of each line of the request log. Raises ``ValueError`` for one that is no JSON."""
    from llm_assets.serving.dated_files import dated_files
    from llm_assets.serving.request_log import log_folder

    for path in dated_files(log_folder(root), CHAIN):
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["release"] for line in lines)
