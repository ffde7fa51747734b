"""Which of a chain's two releases answers while one takes over from the other, and what becomes of the newer one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from llm_assets.serving.comparisons import Comparisons, Pair, refuse_unsound
from llm_assets.serving.engine import Classified
from llm_assets.serving.errors import ApiError
from llm_assets.serving.events import append_event
from llm_assets.serving.patience import TIMEOUT
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.releases import roll_back
from llm_assets.serving.rollout import Apart, Plan, Rollout, Window, advance, begin, breach, rolled_back
from llm_assets.serving.state import Desired, rollout_lock, rollout_of, write_rollout
from llm_assets.serving.windows import Watches, step_of

logger = logging.getLogger(__name__)

LEAST = 0.5  # seconds that the newer release may take for any request: a busy machine stops for some tenths at times
SLOWLY = 5_000  # characters a second: a quarter of what a small model reads on one core of 2026

Submit = Callable[[Deployment], Awaitable[list[Classified]]]
Told = Callable[[bool, float], None]  # whether a request failed, and its milliseconds


class Router:
    """Splits a chain's requests between the stable release and the one that is rolled out, by the rules of ``rollout``.

    The share goes by a hash of the session (else of the request), so one session sees one release, and keeps it as the share
    grows. A request on which the newer release fails, or is not heard of in time (``seconds_for``), is answered by the stable
    one. In the shadow stage the newer release answers beside the stable one, in a canary the stable one beside the newer, as often
    as ``Comparisons`` can spare the time.
    A breach switches at once. ``step`` writes it down: the rollout's state stands beside the desired state, under a lock, so
    that a restart goes on from it and every gateway of the data root reads the same.
    """

    def __init__(self, home: Path, reconciler: Reconciler, clock: Callable[[], float] = time.time) -> None:
        self._home, self._reconciler, self._clock = home, reconciler, clock
        self._watches: dict[str, Watches] = {}
        self._breached: dict[str, Rollout] = {}  # switched back, and yet to be written down
        self._comparisons = Comparisons(home)

    async def answer(
        self, stable: Deployment, identity: str, session: str | None, texts: Sequence[str], submit: Submit
    ) -> tuple[Deployment, list[Classified]]:
        """The deployment that answered, and its answers, whose id is ``identity``; a request without a session is one of its own.

        Raises what ``submit`` raises of the stable release, and any ``ApiError`` but that of a newer release that took too long.
        """
        pair = self._pair(stable)
        if pair is None:
            return stable, await submit(stable)
        if takes(pair.rollout, session or identity) and (answers := await self._attempt(pair, texts, submit)) is not None:
            if pair.plan.expected_disagreement is not None:
                self._comparisons.attempt(pair, pair.stable, identity, texts, answers, self._judge)
            return pair.candidate, answers
        began = time.perf_counter()
        answers = await submit(stable)
        pair.watches.stable.request(failed=False, milliseconds=_milliseconds(began))
        if pair.rollout.stage == "shadow":
            self._comparisons.attempt(pair, pair.candidate, identity, texts, answers, self._judge)
        return stable, answers

    def choose(self, stable: Deployment, session: str) -> tuple[Deployment, Told]:
        """The deployment that is to generate an answer, and what is to be told how it went: to its first token, the rest being the length.

        Answers are not compared word for word, since two models hardly ever write the same: see ``reader``.
        """
        pair = self._pair(stable)
        if pair is None:
            return stable, lambda failed, milliseconds: None
        if takes(pair.rollout, session):
            return pair.candidate, partial(self._told, pair)
        return stable, pair.watches.stable.request

    def shadow(self, stable: Deployment) -> tuple[Deployment, Told] | None:
        """The deployment that is to begin every answer unheard beside the stable one, where a shadow stage is under way."""
        pair = self._pair(stable)
        return (pair.candidate, partial(self._told, pair)) if pair and pair.rollout.stage == "shadow" else None

    def reader(self, stable: Deployment, answered: Deployment) -> tuple[Deployment, Callable[[Apart], None]] | None:
        """The other release, which is to read an answer that ``answered`` wrote, and what is to be told how far ``apart`` the two are on it.

        In a canary the stable one reads what the newer wrote, in the shadow stage the newer one what the stable wrote. None where
        nothing was foretold to hold that against.
        """
        pair = self._pair(stable)
        if pair is None or not pair.plan.of_replies or pair.plan.expected_disagreement is None:
            return None
        if answered is pair.candidate:
            return pair.stable, partial(self._read, pair)
        return (pair.candidate, partial(self._read, pair)) if pair.rollout.stage == "shadow" else None

    def _read(self, pair: Pair, apart: Apart) -> None:
        if math.isfinite(apart.bits):
            pair.watches.candidate.read(apart)
        else:  # one such number would decide every sum that it is in
            logger.warning("%s and %s cannot be compared on a reply: its likelihood is no number", pair.rollout.release, pair.rollout.stable)
            pair.watches.candidate.request(failed=True, milliseconds=0.0)
        self._judge(pair)

    def _told(self, pair: Pair, failed: bool, milliseconds: float) -> None:
        pair.watches.candidate.request(failed, milliseconds)
        self._judge(pair)

    def step(self) -> None:
        """Take every rollout on, or write down that it went back. Does file work; not for two threads at once."""
        for chain, desired in self._reconciler.wanted.items():
            if desired and desired.stable and chain in self._reconciler.candidates:
                self._step(chain, desired)
        for chain, broken in list(self._breached.items()):
            candidate = self._reconciler.candidates.get(chain)
            if candidate is None or candidate.desired.release != broken.release:  # another gateway wrote it down, or another is asked for
                self._breached.pop(chain, None)

    def close(self) -> None:
        """End the comparisons."""
        self._comparisons.close()

    def _pair(self, stable: Deployment) -> Pair | None:
        """The stable release and what is rolled out beside it now, or None."""
        chain = stable.desired.chain
        candidate, wanted = self._reconciler.candidates.get(chain), self._reconciler.wanted.get(chain)
        rollout = self._breached.get(chain) or self._reconciler.rollouts.get(chain)
        if candidate is None or rollout is None or rollout.stage == "rolled_back" or candidate.desired.release != rollout.release:
            return None  # one in full stays the candidate until it has the other's place
        if wanted is None or wanted.plan is None:
            return None
        return Pair(chain, stable, candidate, rollout, wanted.plan, self._watches_of(chain, rollout))

    def _watches_of(self, chain: str, rollout: Rollout) -> Watches:
        step = step_of(rollout)
        known = self._watches.get(chain)
        if known is None or known.step != step:
            known = self._watches[chain] = Watches(step)
        return known

    async def _attempt(self, pair: Pair, texts: Sequence[str], submit: Submit) -> list[Classified] | None:
        """The newer release's answers, or None where it failed or took too long.

        Any other ``ApiError`` is about the request or the gateway and says nothing of it.
        """
        began = time.perf_counter()
        answers: list[Classified] | None = None
        try:
            async with asyncio.timeout(seconds_for(pair.plan, texts)):
                answers = await submit(pair.candidate)
            refuse_unsound(answers)
        except Exception as error:
            if isinstance(error, ApiError) and error.status != HTTPStatus.GATEWAY_TIMEOUT:
                raise
            answers = None
            said = str(error) or f"no answer after {_milliseconds(began):.0f} ms"
            logger.warning("%s failed on a request, which %s answers: %s", pair.rollout.release, pair.rollout.stable, said)
        took = _milliseconds(began)
        pair.watches.candidate.request(answers is None, took)
        if answers is None or took > pair.plan.max_p99_ms:  # a good answer breaks no limit; what it completes ``step`` finds
            self._judge(pair)
        return answers

    def _judge(self, pair: Pair) -> None:
        """Switch back at once when a limit is broken."""
        if not pair.rollout.is_over and (
            reason := breach(pair.plan, pair.watches.candidate.window(pair.plan.max_p99_ms, pair.plan.allowed_disagreement))
        ):
            self._breached[pair.chain] = rolled_back(pair.rollout, reason)

    def _step(self, chain: str, desired: Desired) -> None:
        assert desired.plan
        known = rollout_of(self._home, desired)
        if self._following(chain, known, desired) == known:
            return
        with rollout_lock(self._home, chain):
            known = rollout_of(self._home, desired)
            following = self._following(chain, known, desired)
            if following != known:
                self._tell(chain, known, following, desired.plan)
                write_rollout(self._home, chain, following)
        self._reconciler.rollouts = {**self._reconciler.rollouts, chain: following}
        if following.is_over:
            self._breached.pop(chain, None)
            self._watches.pop(chain, None)

    def _following(self, chain: str, known: Rollout | None, desired: Desired) -> Rollout:
        assert desired.stable and desired.plan
        if known is None:
            return begin(desired.release, desired.stable.release, desired.began, desired.plan, self._clock())
        broken = self._breached.get(chain)
        if broken and broken.release == known.release and not known.is_over:
            return rolled_back(known, broken.reason)
        return advance(known, desired.plan, self._window(chain, known, desired.plan), self._clock())

    def _window(self, chain: str, rollout: Rollout, plan: Plan) -> Window:
        watches = self._watches.get(chain)
        return watches.candidate.window(plan.max_p99_ms, plan.allowed_disagreement) if watches and watches.step == step_of(rollout) else Window()

    def _tell(self, chain: str, before: Rollout | None, after: Rollout, plan: Plan) -> None:
        """Events of what is about to be written; of a rollback an entry in the release journal too, and an alert.

        They come first: a gateway killed between the two finds the breach again, and the journal takes the entry once.
        """
        if before and (before.stage, before.step) == (after.stage, after.step):
            return  # the clock was set back
        figures = {"stage": after.stage, "share": after.share, "stable": after.stable, **self._figures(chain, before or after)}
        if after.stage == "rolled_back":
            message = f"{after.release} was rolled back to {after.stable}: {after.reason}"
            roll_back(self._home, chain, after.stable, by="gateway", note=after.reason, only_from=after.release)
            append_event(self._home, chain, "rollback", message, after.release, **figures)
            told = f"{message}; for team:{plan.team}" if plan.team else message  # a desired state of an earlier version names none
            append_event(self._home, chain, "alert", told, after.release, rule="rollback", role=plan.role, team=plan.team, **figures)
            logger.error("%s", message)
        else:
            place = {"shadow": "answers unheard beside", "full": "has taken over from"}.get(after.stage, f"answers {after.share:g}% beside")
            append_event(self._home, chain, "rollout", f"{after.release} {place} {after.stable}", after.release, **figures)

    def _figures(self, chain: str, rollout: Rollout) -> dict[str, Any]:
        """What the step that ends saw."""
        watches = self._watches.get(chain)
        if watches is None or watches.step != step_of(rollout):
            return {}
        window = watches.candidate.window(math.inf)
        counted = {name: count for name, count in asdict(window).items() if name not in ("slow", "squares")}
        return {**counted, "p99_ms": watches.candidate.p99(), "stable_p99_ms": watches.stable.p99()}


def takes(rollout: Rollout, session: str) -> bool:
    """Whether the newer release answers a session: a hash of both names falls below its share. A larger share keeps whom a smaller had."""
    place = int.from_bytes(hashlib.sha256(f"{rollout.release}/{session}".encode()).digest()[:8], "big")
    return place < rollout.share / 100 * 2**64


def seconds_for(plan: Plan, texts: Sequence[str]) -> float:
    """How long the newer release may take for a request before the stable one is asked: twice its p99, and longer for a long request.

    A third of what a client waits for at most, so that there is time for the other.
    """
    return min(max(LEAST, 2 * plan.max_p99_ms / 1000) + sum(map(len, texts)) / SLOWLY, TIMEOUT / 3)


def _milliseconds(began: float) -> float:
    return (time.perf_counter() - began) * 1000
