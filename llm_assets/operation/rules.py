"""The rules of alerts: a small language, parsed when the YAML is loaded, and read off what the service shows.

negative_share > 0.6 over 15m      the share of texts answered so
error_rate > 0.01 over 5m          of requests that the gateway answered with 5xx
p99_ms > 200 over 15m              also p50_ms: from question to answer
requests < 1 over 1h               how many came in
estimated_accuracy < 0.8           of the newest window that drift looked at
drift                              whether it saw any
rollback                           whether the gateway took back the release that it was to roll out
stale_model > 30d                  how long ago the released model was made
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from llm_assets.operation.log import Request
from llm_assets.serving.rollout import Rollout

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}  # seconds
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
WINDOWED = re.compile(r"(?P<metric>\S.*?)\s*(?P<sign>[<>])\s*(?P<bound>\d+(?:\.\d+)?)\s+over\s+(?P<window>\S+)")
ACCURACY = re.compile(r"estimated_accuracy\s*<\s*(?P<bound>\d+(?:\.\d+)?)")
STALE = re.compile(r"stale_model\s*>\s*(?P<age>\S+)")
PERCENTILE = re.compile(r"p(\d{2})_ms")
SHARE = "_share"
FORMS = (
    "`LABEL_share > 0.6 over 15m`, `error_rate > 0.01 over 5m`, `p99_ms > 200 over 15m`, `requests < 1 over 1h`, "
    "`estimated_accuracy < 0.8`, `drift`, `rollback`, `stale_model > 30d`"
)


class RuleError(ValueError):
    """A rule is none of the language."""


@dataclass(frozen=True)
class Rule:
    """One rule. ``metric`` compared with ``bound``: above it where ``above``, else below; over ``seconds``, 0 for the present."""

    text: str
    metric: str
    above: bool
    bound: float
    seconds: float

    def holds(self, value: float) -> bool:
        """Whether a value breaks the rule's bound."""
        return value > self.bound if self.above else value < self.bound


@dataclass(frozen=True)
class Reading:
    """What a rule reads now; ``value`` is None where there is nothing to go by, and ``why`` says which."""

    value: float | None
    why: str


@dataclass(frozen=True)
class Signals:
    """What the rules read: the service's traces at a moment."""

    now: datetime
    requests: Sequence[Request]  # oldest first, of the longest window at least
    counters: Sequence[tuple[datetime, int, int]] = ()  # looks at the gateway's counters, oldest first: errors and answers since it started
    drift: Mapping[str, Any] | None = None  # the record of the newest look
    rollout: Rollout | None = None  # of the release that is desired
    release: str | None = None
    made: datetime | None = None  # the released model
    labels: Sequence[str] = field(default_factory=tuple)  # that it answers with; empty where unknown


def duration(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``12h`` or ``30d``. Raises ``RuleError``."""
    found = DURATION.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise RuleError(f"{text!r} is no duration: write a number and s, m, h or d, such as 15m")
    return float(found[1]) * UNITS[found[2]]


def parse(text: str) -> Rule:
    """A rule from its text. Raises ``RuleError`` naming the forms there are."""
    stripped = text.strip()
    if stripped in ("drift", "rollback"):
        return Rule(text, stripped, True, 0, 0)
    if found := STALE.fullmatch(stripped):
        return Rule(text, "stale_model", True, duration(found["age"]), 0)
    if found := ACCURACY.fullmatch(stripped):
        return Rule(text, "estimated_accuracy", False, float(found["bound"]), 0)
    if (found := WINDOWED.fullmatch(stripped)) and _is_windowed(found["metric"]):
        return Rule(text, found["metric"], found["sign"] == ">", float(found["bound"]), duration(found["window"]))
    raise RuleError(f"{text!r} is no rule; there are: {FORMS}")


def read(rule: Rule, signals: Signals, minimum: int) -> Reading:
    """The value of a rule's metric; shares, errors and latency only of ``minimum`` requests or more."""
    if rule.metric == "drift":
        return _drift(signals)
    if rule.metric == "rollback":
        return _rollback(signals)
    if rule.metric == "estimated_accuracy":
        known = (signals.drift or {}).get("estimated_accuracy")
        return Reading(known, f"estimated for {signals.drift['release']}" if signals.drift and known is not None else "drift has estimated none yet")
    if rule.metric == "stale_model":
        age = (signals.now - signals.made).total_seconds() if signals.made else None
        return Reading(age, f"{signals.release} was made {age / UNITS['d']:.1f} days ago" if age is not None else "nothing is released yet")
    since = signals.now - timedelta(seconds=rule.seconds)
    if rule.metric == "error_rate":
        return _error_rate(signals, since, minimum)
    return _of_requests(rule.metric, [request for request in signals.requests if request.at >= since], signals.labels, minimum)


def _is_windowed(metric: str) -> bool:
    return metric in ("error_rate", "requests") or bool(PERCENTILE.fullmatch(metric)) or (metric.endswith(SHARE) and metric != SHARE)


def _drift(signals: Signals) -> Reading:
    if signals.drift is None:
        return Reading(None, "drift was not looked for yet")
    if signals.release not in (None, signals.drift["release"]):
        return Reading(0, f"{signals.release} was released since drift was looked for")
    return Reading(len(signals.drift["drifted"]), signals.drift["reason"])


def _rollback(signals: Signals) -> Reading:
    rollout = signals.rollout
    if rollout is None or rollout.stage != "rolled_back":
        return Reading(0, "no release that was asked for is taken back")
    return Reading(1, f"{rollout.release} was rolled back to {rollout.stable}: {rollout.reason}")


def _error_rate(signals: Signals, since: datetime, minimum: int) -> Reading:
    """From the looks at the counters; one that fell belongs to a gateway that started anew."""
    inside = [look for look in signals.counters if look[0] >= since]
    before = [look for look in signals.counters if look[0] < since][-1:]
    looks = [*before, *inside]
    errors = answers = 0
    for (_, errors_before, answers_before), (_, errors_now, answers_now) in pairwise(looks):
        restarted = answers_now < answers_before
        errors += errors_now - (0 if restarted else errors_before)
        answers += answers_now - (0 if restarted else answers_before)
    if answers < minimum:
        return Reading(None, f"{answers} answers were counted, {minimum} are needed")
    return Reading(errors / answers, f"{errors} of {answers} requests")


def _of_requests(metric: str, requests: Sequence[Request], labels: Sequence[str], minimum: int) -> Reading:
    if metric == "requests":
        return Reading(len(requests), f"{len(requests)} requests")
    label = metric.removesuffix(SHARE)
    if metric.endswith(SHARE) and labels and label not in labels:
        return Reading(None, f"the model answers with {', '.join(labels)}, not with {label}")
    if len(requests) < minimum:
        return Reading(None, f"{len(requests)} requests, {minimum} are needed")
    if found := PERCENTILE.fullmatch(metric):
        times = sorted(request.milliseconds for request in requests)
        return Reading(times[max(0, math.ceil(int(found[1]) / 100 * len(times)) - 1)], f"of {len(times)} requests")
    answered = [text.label for request in requests for text in request.texts]
    # A text may have several labels.
    return Reading(sum(label in each.split("|") for each in answered) / len(answered), f"of {len(answered)} texts")
