from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from llm_assets.operation.log import Request, Text
from llm_assets.operation.rules import Rule, RuleError, Signals, duration, parse, read
from llm_assets.serving.rollout import Rollout, rolled_back
from llm_assets_tests.operation.traffic import NOON


def request(minutes_ago: float, *labels: str, milliseconds: float = 3.0) -> Request:
    texts = [Text(index, "", 1, "好", label, [0.1, 0.9], None) for index, label in enumerate(labels)]
    return Request("id", NOON - timedelta(minutes=minutes_ago), "tiny-1", "shop", milliseconds, texts)


def value(rule: str, requests: Sequence[Request] = (), minimum: int = 1, **signals: Any) -> float | None:
    return read(parse(rule), Signals(NOON, requests, **signals), minimum).value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("negative_share > 0.6 over 15m", Rule("", "negative_share", True, 0.6, 900)),
        ("很差_share>0.6 over 90s", Rule("", "很差_share", True, 0.6, 90)),
        ("error_rate > 0.01 over 5m", Rule("", "error_rate", True, 0.01, 300)),
        ("p99_ms > 200 over 1.5h", Rule("", "p99_ms", True, 200, 5400)),
        ("requests < 1 over 1d", Rule("", "requests", False, 1, 86400)),
        ("estimated_accuracy < 0.8", Rule("", "estimated_accuracy", False, 0.8, 0)),
        (" drift ", Rule("", "drift", True, 0, 0)),
        ("rollback", Rule("", "rollback", True, 0, 0)),
        ("stale_model > 30d", Rule("", "stale_model", True, 30 * 86400, 0)),
    ],
)
def test_the_language(text: str, rule: Rule) -> None:
    parsed = parse(text)
    assert (parsed.metric, parsed.above, parsed.bound, parsed.seconds) == (rule.metric, rule.above, rule.bound, rule.seconds)
    assert parsed.text == text


@pytest.mark.parametrize(
    "text",
    [
        "", "negative > 0.6 over 15m", "_share > 0.5 over 5m", "error_rate > 0.01", "error_rate >= 0.01 over 5m", "p999_ms > 1 over 5m",
        "error_rate > -1 over 5m", "error_rate > 0.1 over 5 minutes", "drift over 5m", "stale_model > 30", "stale_model < 30d",
        "error_rate > __import__('os') over 5m", "error_rate > 0.01 over 0m", "estimated_accuracy > 0.8",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_told_the_forms_there_are(text: str) -> None:
    with pytest.raises(RuleError, match=r"such as 15m|there are: `LABEL_share > 0\.6 over 15m`"):
        parse(text)


def test_durations() -> None:
    assert [duration(text) for text in ("90s", "15m", "12h", "30d")] == [90, 900, 43200, 2592000]
    with pytest.raises(RuleError, match="'7' is no duration"):
        duration("7")


def test_shares_and_latency_are_of_the_window_alone() -> None:
    asked = [request(20, "negative"), request(9, "negative", "positive", milliseconds=40), *[request(1, "negative")] * 8]
    assert value("negative_share > 0.6 over 10m", asked) == pytest.approx(0.9)
    assert value("room_share > 0.5 over 10m", [request(1, "room|price"), request(1, "price")]) == 0.5
    assert value("p99_ms > 1 over 10m", asked) == 40 and value("p50_ms > 1 over 10m", asked) == 3
    assert value("p50_ms > 1 over 10m", [request(1, "a", milliseconds=time) for time in (1, 2, 3, 4)]) == 2  # nearest rank
    assert value("requests < 1 over 10m", asked) == 9 and value("requests < 1 over 10m") == 0


def test_too_few_requests_and_unknown_labels_are_nothing_to_go_by() -> None:
    assert value("negative_share > 0.6 over 10m", [request(1, "negative")] * 19, minimum=20) is None
    assert value("negative_share > 0.6 over 10m", [request(1, "negative")] * 20, minimum=20) == 1
    unknown = read(parse("negativ_share > 0.6 over 10m"), Signals(NOON, [request(1, "negative")], labels=["negative", "positive"]), 1)
    assert unknown.value is None and unknown.why == "the model answers with negative, positive, not with negativ"


def test_the_error_rate_is_what_the_counters_rose_by() -> None:
    def rate(*looks: tuple[float, int, int]) -> float | None:
        return value("error_rate > 0.01 over 5m", counters=[(NOON - timedelta(minutes=ago), errors, answers) for ago, errors, answers in looks])

    assert rate((20, 0, 0), (6, 5, 100), (4, 5, 150), (0, 10, 200)) == 0.05  # the 5 of before the window do not count
    assert rate((6, 5, 100), (0, 2, 10)) == 0.2  # a gateway that started anew counts from zero
    assert rate((0, 5, 100)) is None and rate() is None


def test_a_release_taken_back_is_a_rollback() -> None:
    rollout = Rollout("tiny-2", "tiny-1", "t", "canary", share=5.0)
    assert value("rollback") == value("rollback", rollout=rollout) == 0
    back = read(parse("rollback"), Signals(NOON, (), rollout=rolled_back(rollout, "9 of 10 requests failed")), 1)
    assert (back.value, back.why) == (1, "tiny-2 was rolled back to tiny-1: 9 of 10 requests failed")


def test_drift_counts_for_the_release_it_was_looked_for_in() -> None:
    seen = {"release": "tiny-1", "drifted": ["length"], "reason": "length differs", "estimated_accuracy": 0.7}
    assert value("drift", drift=seen, release="tiny-1") == 1 and value("drift", drift=seen, release="tiny-2") == 0
    assert value("drift", drift={**seen, "drifted": []}, release="tiny-1") == 0 and value("drift") is None
    assert value("estimated_accuracy < 0.8", drift=seen) == 0.7 and value("estimated_accuracy < 0.8") is None


def test_the_age_of_the_model() -> None:
    signals: Mapping[str, Any] = {"release": "tiny-1", "made": NOON - timedelta(days=31)}
    age = value("stale_model > 30d", **signals)
    assert age is not None and parse("stale_model > 30d").holds(age) and not parse("stale_model > 32d").holds(age)
    assert value("stale_model > 30d") is None
