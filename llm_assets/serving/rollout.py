"""The rules by which a release takes over from the one before: shadow, a canary's steps, full, or back. Pure: no clock, no files.

A rollout is judged by three shares of what the new release did: failed requests, requests slower than the limit, and answers that
differ from the stable release's. Each is held against its limit by an exact binomial test, since a share of a few requests says
little: with a limit of 2%, three failures of ten break it and one does not. Replies, of which almost none are equal, are held against
it by how far the two releases are ``apart`` on them, all bits over all bytes, which must lie above the limit by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, NamedTuple

Stage = Literal["shadow", "canary", "full", "rolled_back"]

ALPHA = 0.001  # chance that a release just within a limit breaks it in one look; looks overlap, so all of them together cost a few of these
TAIL = 0.01  # share of requests that may be slower than a p99
READ = 20  # replies read by both releases, below which their mean says nothing


@dataclass(frozen=True)
class Plan:
    """How a release is rolled out, and what it must keep to on its way."""

    steps: tuple[float, ...] = (5.0, 25.0, 100.0)  # percent of the requests, rising to 100
    shadow: bool = False  # a first step in which it answers beside the stable release, unheard
    step_seconds: float = 60.0
    step_requests: int = 100  # of the new release, in each step
    minimum_requests: int = 10  # of the new release before anything is judged
    max_error_rate: float = 0.02
    max_p99_ms: float = 500.0
    max_extra_disagreement: float = 0.1  # share of differing answers, or bits per byte of replies, beyond the expected one
    expected_disagreement: float | None = None  # as the gate measured; None: nothing was predicted, so differing answers are not judged
    prediction: str = ""  # on which texts the gate measured it, in words
    of_replies: bool = False  # whether that is bits per byte that the two releases are apart on replies
    role: str = ""  # who answers for the rollout and is named when it goes back: one of links.roles
    team: str = ""  # as the chain's YAML calls that role

    @property
    def allowed_disagreement(self) -> float:
        """What answers may differ: a share of them, or bits per byte of replies."""
        return (self.expected_disagreement or 0.0) + self.max_extra_disagreement


class Apart(NamedTuple):
    """How far two releases are apart on one answer."""

    bits: float  # that its reader spends on it above those that its writer spends
    bytes: int  # of what both read of it


@dataclass(frozen=True)
class Window:
    """What the new release did in the present step: ``total`` requests since it began, the other figures over the newest of them."""

    total: int = 0
    requests: int = 0
    errors: int = 0
    slow: int = 0  # above ``max_p99_ms``
    compared: int = 0  # answers held against the stable release's
    different: float = 0  # of them; of replies the bits that the releases are apart, all together
    bytes: int = 0  # of those replies
    squares: float = 0.0  # of the bits by which each reply lies above what its bytes allow, all together


@dataclass(frozen=True)
class Rollout:
    """Where a rollout stands."""

    release: str
    stable: str
    asked: str  # ``Desired.began``: the same two releases may be asked for again, and that is another rollout
    stage: Stage
    step: int = 0  # of a canary
    share: float = 0.0  # percent of the requests that the new release answers
    since: float = 0.0  # unix time at which the step began
    reason: str = ""  # of a rollback

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self.stage in ("full", "rolled_back")

    @property
    def split(self) -> dict[str, float]:
        """Percent of the requests by release."""
        return {name: share for name, share in ((self.stable, 100 - self.share), (self.release, self.share)) if share}


def begin(release: str, stable: str, asked: str, plan: Plan, now: float) -> Rollout:
    """The first step of a plan."""
    if plan.shadow:
        return Rollout(release, stable, asked, "shadow", since=now)
    return _at_step(Rollout(release, stable, asked, "canary"), plan, 0, now)


def resumed(known: Rollout | None, release: str, stable: str, asked: str, plan: Plan) -> Rollout | None:
    """What is known of a rollout, where it is the one asked for, by whatever plan now; None where that is yet to begin."""
    if known is None or (known.release, known.stable, known.asked) != (release, stable, asked):
        return None
    if known.stage != "canary":
        return known
    step = min(known.step, len(plan.steps) - 1)
    return replace(known, step=step, share=plan.steps[step])


def advance(rollout: Rollout, plan: Plan, window: Window, now: float) -> Rollout:
    """Where the rollout stands after what ``window`` saw, at unix time ``now``; the same object when nothing changes.

    A breach rolls back at once. A healthy release takes its next step after both ``step_seconds`` and ``step_requests``. A clock
    that was set back costs one step its time so far; one set ahead still leaves ``step_requests`` to wait for.
    """
    if rollout.is_over:
        return rollout
    if reason := breach(plan, window):
        return rolled_back(rollout, reason)
    if now < rollout.since:
        return replace(rollout, since=now)
    if now - rollout.since < plan.step_seconds or window.total < max(plan.step_requests, plan.minimum_requests):
        return rollout
    following = 0 if rollout.stage == "shadow" else rollout.step + 1
    if following == len(plan.steps):
        return replace(rollout, stage="full", share=100.0, since=now)
    return _at_step(rollout, plan, following, now)


def rolled_back(rollout: Rollout, reason: str) -> Rollout:
    """The rollout after a breach: the stable release answers everything."""
    return replace(rollout, stage="rolled_back", share=0.0, reason=reason)


def breach(plan: Plan, window: Window) -> str | None:
    """Which limit is broken, with the figures, or None."""
    if window.requests < plan.minimum_requests:
        return None
    return next((reason for is_broken, reason in _judged(plan, window) if is_broken), None)


def exceeds(bad: int, of: int, limit: float) -> bool:
    """Whether ``bad`` of ``of`` trials are more than a share of ``limit`` explains: P(X >= bad) < ``ALPHA`` for X binomial(of, limit).

    One is never enough.
    """
    if bad < 2 or bad <= limit * of:
        return False
    if limit <= 0:
        return True
    terms = (_log_binomial(of, count) + count * math.log(limit) + (of - count) * math.log1p(-limit) for count in range(bad, of + 1))
    return math.fsum(map(math.exp, terms)) < ALPHA


def mean_exceeds(total: float, squares: float, of: int) -> bool:
    """Whether the mean of ``of`` numbers, given by their sum and the sum of their squares, lies above 0 by more than chance.

    Student's test at ``ALPHA``, its quantile by the first term of Cornish and Fisher's expansion (1938): 3.4 at 30 numbers, 3.09 at many.
    """
    if of < READ or total <= 0:
        return False
    mean = total / of
    variance = max(0.0, squares / of - mean**2) * of / (of - 1)
    normal = NormalDist().inv_cdf(1 - ALPHA)
    return mean - (normal + (normal**3 + normal) / (4 * (of - 1))) * math.sqrt(variance / of) > 0


def _judged(plan: Plan, window: Window) -> Iterator[tuple[bool, str]]:
    errors, slow, requests, compared = window.errors, window.slow, window.requests, window.compared
    failed = f"{errors} of {requests} requests failed, {plan.max_error_rate:.1%} are allowed"
    yield exceeds(errors, requests, plan.max_error_rate), failed
    yield exceeds(slow, requests, TAIL), f"{slow} of {requests} requests took longer than {plan.max_p99_ms:g} ms, {TAIL:.0%} may"
    if plan.expected_disagreement is None:
        return
    allowed, basis = plan.allowed_disagreement, f" ({plan.prediction})" if plan.prediction else ""
    if plan.of_replies:
        found = f"{compared} replies are {window.different / max(1, window.bytes):.3f} bits per byte apart from the other release's"
        predicted = f"the gate predicted {plan.expected_disagreement:.3f}{basis} and {plan.max_extra_disagreement:.3f} more are allowed"
        yield mean_exceeds(window.different - allowed * window.bytes, window.squares, compared), f"{found}, {predicted}"
    else:
        predicted = f"the gate predicted {plan.expected_disagreement:.1%}{basis} and {plan.max_extra_disagreement:.1%} more are allowed"
        different = int(window.different)
        found = f"{different} of {compared} answers differ from the stable release's, {predicted}"
        yield exceeds(different, compared, min(1.0, allowed)), found


def _at_step(rollout: Rollout, plan: Plan, step: int, now: float) -> Rollout:
    return replace(rollout, stage="canary", step=step, share=plan.steps[step], since=now)


def _log_binomial(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
