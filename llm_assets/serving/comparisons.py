"""The labels of a rollout's other release for a request that one of the two has answered: nobody waits for them, and both are compared."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llm_assets.serving.engine import Classified, decided
from llm_assets.serving.engines import classifier_of
from llm_assets.serving.patience import TIMEOUT
from llm_assets.serving.reconciler import Deployment
from llm_assets.serving.rollout import Plan, Rollout
from llm_assets.serving.shadows import Shadows
from llm_assets.serving.sparing import Sparing
from llm_assets.serving.windows import Watches

logger = logging.getLogger(__name__)

TEXTS = 32  # of a request that the other release answers too
SECONDS = TIMEOUT  # that it may take for it, at low priority on a busy machine; more counts as a failure
SHARE = 0.1  # of the time, until there are
ENOUGH = 50  # comparisons of a step: what is judged needs some tens, and then
AFTERWARDS = 0.03  # of the time will do, since a tenth is felt near a gateway's peak
NICE = 10  # of the thread that does so: the answers that clients wait for come first


@dataclass(frozen=True)
class Pair:
    """Two releases of a chain, and where the rollout of one beside the other stands while a request is answered."""

    chain: str
    stable: Deployment
    candidate: Deployment
    rollout: Rollout
    plan: Plan
    watches: Watches


class Comparisons:
    """Asks the other release in a thread of low priority, one request at a time; one that finds it busy or at rest is not compared."""

    def __init__(self, home: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beside", initializer=_yield_to_others)
        self._sparing = Sparing()
        self._shadows = Shadows(home)

    def attempt(
        self, pair: Pair, other: Deployment, identity: str, texts: Sequence[str], answers: Sequence[Classified], judge: Callable[[Pair], None]
    ) -> None:
        """Have ``other`` answer the first texts too, and have the pair judged by what the comparison added to its windows."""
        share = SHARE if pair.watches.candidate.compared < ENOUGH else AFTERWARDS
        self._sparing.attempt(lambda: self._compare(pair, other, identity, list(texts[:TEXTS]), answers[:TEXTS], judge), share)

    def close(self) -> None:
        """End the thread, which is not waited for: a release may hang in it."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._shadows.close()

    async def _compare(
        self, pair: Pair, other: Deployment, identity: str, texts: list[str], answers: Sequence[Classified], judge: Callable[[Pair], None]
    ) -> None:
        answered = pair.stable if other is pair.candidate else pair.candidate
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SECONDS):
                theirs = await loop.run_in_executor(self._thread, classifier_of(other, pair.chain).answer, texts)
            refuse_unsound(theirs)
        except Exception as error:
            theirs = None
            said = str(error) or f"no answer after {SECONDS:g} s"
            logger.warning("%s failed on a request that it was to compare: %s", other.desired.release, said)
        if other is pair.candidate:
            pair.watches.candidate.request(theirs is None, 1000 * (time.perf_counter() - began))
        if theirs is not None and classifier_of(answered, pair.chain).problem != "regression":  # numbers always differ in some digit
            labels = _labels(other, theirs)
            different = sum(one != another for one, another in zip(_labels(answered, answers), labels, strict=True))
            pair.watches.candidate.comparisons(different, len(texts))
            judge(pair)
            with suppress(OSError):  # a full disk: the request log says so, and these are a help to annotators alone
                await loop.run_in_executor(self._thread, self._shadows.note, pair.chain, identity, other.desired.release, labels)
        judge(pair)


def refuse_unsound(answers: Sequence[Classified]) -> None:
    """Raise ``ValueError`` where a probability is no number."""
    if not all(map(math.isfinite, (value for answer in answers for value in answer.probabilities))):
        raise ValueError("an answer holds a number that is none")


def _labels(deployment: Deployment, answers: Sequence[Classified]) -> list[str]:
    engine = classifier_of(deployment, deployment.desired.chain)
    return [decided(engine.problem, answer.probabilities, engine.labels) for answer in answers]


def _yield_to_others() -> None:
    """Lower this thread's priority, which Linux keeps for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
