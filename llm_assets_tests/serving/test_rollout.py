"""The rules of a rollout, for any plan and any history."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from llm_assets.serving.rollout import ALPHA, READ, Apart, Plan, Rollout, Window, advance, begin, breach, exceeds, mean_exceeds, resumed
from llm_assets.serving.windows import Watch

shares = st.floats(0, 1)
plans = st.builds(
    Plan,
    steps=st.lists(st.floats(0.1, 99.9), max_size=4, unique=True).map(lambda steps: (*sorted(steps), 100.0)),
    shadow=st.booleans(),
    step_seconds=st.floats(0, 1e5),
    step_requests=st.integers(0, 1000),
    minimum_requests=st.integers(1, 50),
    max_error_rate=shares,
    max_p99_ms=st.floats(1, 1e4),
    max_extra_disagreement=shares,
    expected_disagreement=st.none() | shares,
)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    requests = draw(st.integers(0, 500))
    compared = draw(st.integers(0, 500))
    total = requests + draw(st.integers(0, 500))
    errors, slow = draw(st.integers(0, requests)), draw(st.integers(0, requests))
    return Window(total, requests, errors, slow, compared, draw(st.integers(0, compared)))


histories = st.lists(st.tuples(windows(), st.floats(-1e6, 1e6)), max_size=30)  # what was seen, and how the clock went on, or jumped


def run(plan: Plan, history: list[tuple[Window, float]]) -> list[tuple[Window, Rollout]]:
    now = 1e9
    states = [(Window(), begin("new", "old", "t", plan, now))]
    for window, seconds in history:
        now += seconds
        states.append((window, advance(states[-1][1], plan, window, now)))
    return states


@given(plans, histories)
def test_shares_are_percentages_and_add_up(plan: Plan, history: list[tuple[Window, float]]) -> None:
    for _, state in run(plan, history):
        assert 0 <= state.share <= 100
        assert math.isclose(sum(state.split.values()), 100)
        assert state.share == {"shadow": 0.0, "rolled_back": 0.0, "full": 100.0}.get(state.stage, plan.steps[state.step])


@given(plans, histories)
def test_shares_only_grow_until_a_breach(plan: Plan, history: list[tuple[Window, float]]) -> None:
    states = run(plan, history)
    for (_, before), (window, after) in itertools.pairwise(states):
        assert after.share >= before.share or (after.stage == "rolled_back" and breach(plan, window))


@given(plans, histories)
def test_a_breach_ends_in_rollback_and_never_resumes(plan: Plan, history: list[tuple[Window, float]]) -> None:
    states = run(plan, history)
    for number, (window, state) in enumerate(states):
        if number and not states[number - 1][1].is_over and breach(plan, window):
            assert state.stage == "rolled_back" and state.reason == breach(plan, window)
            assert all(later == state for _, later in states[number:])
            assert resumed(state, "new", "old", "t", plan) == state  # after a restart too
            assert resumed(state, "new", "old", "later", plan) is None  # until it is asked for anew
    assert any(state.stage == "rolled_back" for _, state in states) == any(state.reason != "" for _, state in states)


@given(plans, st.integers(0, 3))
def test_a_healthy_release_ends_in_full(plan: Plan, slow: int) -> None:
    requests = max(plan.step_requests, plan.minimum_requests, 400)
    seen = Window(total=requests, requests=400, slow=slow, compared=400)
    states = run(plan, [(seen, plan.step_seconds + 1)] * (len(plan.steps) + 1))
    assert states[-1][1].stage == "full"
    order = ["shadow"] * plan.shadow + ["canary"] * len(plan.steps) + ["full"] * (2 - plan.shadow)
    assert [state.stage for _, state in states] == order[: len(states)]


@given(plans, windows(), st.floats(0, 1e5))
def test_too_few_requests_or_too_little_time_change_nothing(plan: Plan, window: Window, seconds: float) -> None:
    state = begin("new", "old", "t", plan, 0.0)
    waits = window.total < max(plan.step_requests, plan.minimum_requests) or seconds < plan.step_seconds  # no step passes unjudged
    if waits and not breach(plan, window):
        assert advance(state, plan, window, seconds) is state


@given(plans, st.integers(1, 500))
def test_one_bad_request_rolls_nothing_back(plan: Plan, requests: int) -> None:
    for bad in (Window(requests, requests, errors=1), Window(requests, requests, slow=1), Window(requests, requests, compared=requests, different=1)):
        assert breach(plan, bad) is None


def test_a_clock_that_jumps_takes_no_step_early_and_stops_none_for_good() -> None:
    plan = Plan(step_seconds=60, step_requests=100)
    healthy, state = Window(total=100, requests=100), begin("new", "old", "t", plan, now=1000.0)
    ahead = advance(state, plan, Window(total=99, requests=99), now=1e6)
    assert ahead is state  # the requests are still to come
    back = advance(state, plan, healthy, now=10.0)
    assert (back.step, back.since) == (0, 10.0)
    assert advance(back, plan, healthy, now=71.0).step == 1


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.001, 0.999))
def test_exceeds_is_the_exact_binomial_test(bad: int, of: int, limit: float) -> None:
    bad = min(bad, of)
    tail = sum(math.comb(of, count) * limit**count * (1 - limit) ** (of - count) for count in range(bad, of + 1))
    if abs(tail - ALPHA) > 1e-9:
        assert exceeds(bad, of, limit) == (bad >= 2 and tail < ALPHA)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Window(10, 10, errors=10), "10 of 10 requests failed, 2.0% are allowed"),
        (Window(10, 10, slow=5), "5 of 10 requests took longer than 500 ms, 1% may"),
        (Window(10, 10, compared=40, different=20), "20 of 40 answers differ from the stable release's, the gate predicted 5.0%"),
        (Window(9, 9, errors=9), None),
        (Window(500, 500, errors=10, slow=5, compared=500, different=75), None),
    ],
)
def test_what_breaks_a_limit_is_said_with_figures(window: Window, words: str | None) -> None:
    found = breach(Plan(expected_disagreement=0.05), window)
    assert words in found if found and words else found == words
    assert breach(Plan(expected_disagreement=None), replace(window, errors=0, slow=0)) is None  # nothing predicted, nothing judged


def test_a_shorter_plan_leaves_a_canary_on_its_last_step() -> None:
    plan = Plan()
    state = Rollout("new", "old", "t", "canary", step=2, share=100.0)
    found = resumed(state, "new", "old", "t", replace(plan, steps=(50.0, 100.0)))
    assert found and (found.step, found.share) == (1, 100.0)


@given(plans, histories)
def test_only_the_rollout_that_is_asked_for_is_resumed(plan: Plan, history: list[tuple[Window, float]]) -> None:
    *_, (_, state) = run(plan, history)
    assert resumed(state, "new", "old", "t", plan) == state
    for other in (("newer", "old", "t"), ("new", "older", "t"), ("new", "old", "later")):
        assert resumed(state, *other, plan) is None
    assert resumed(None, "new", "old", "t", plan) is None


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=80))
def test_a_mean_exceeds_by_students_test(values: list[float]) -> None:
    found = mean_exceeds(sum(values), sum(value * value for value in values), len(values))
    if len(values) < READ:
        assert not found
    elif np.std(values) > 1e-3:
        chance = ttest_1samp(values, 0, alternative="greater").pvalue
        assert found == (chance < ALPHA) or 0.8 * ALPHA < chance < 1.2 * ALPHA  # the quantile is an expansion's


@pytest.mark.parametrize(
    ("apart", "of", "words"),
    [
        (0.5, 40, "40 replies are 0.500 bits per byte apart from the other release's, the gate predicted 0.200 (of 40)"),
        (0.5, 19, None),
        (0.3, 40, None),
    ],
)
def test_replies_are_judged_by_how_far_they_are_apart(apart: float, of: int, words: str | None) -> None:
    plan = Plan(expected_disagreement=0.2, max_extra_disagreement=0.1, prediction="of 40", of_replies=True)
    watch = Watch()
    for number in range(of):
        watch.request(failed=False, milliseconds=1)
        watch.read(Apart(50 * apart + (-1) ** number, 50))
    window = replace(watch.window(500, plan.allowed_disagreement), requests=50)
    found = breach(plan, window)
    assert words in found if found and words else found == words
    assert breach(replace(plan, expected_disagreement=None), window) is None


def test_a_watch_adds_up_how_far_replies_are_apart() -> None:
    watch = Watch()
    for apart in (Apart(10, 20), Apart(-1, 4)):
        watch.read(apart)
    found = watch.window(500, allowed=0.25)
    assert (found.compared, found.different, found.bytes, found.squares) == (2, 9, 24, 5**2 + 2**2)


def test_short_replies_that_are_far_apart_break_no_limit_that_all_bytes_together_keep() -> None:
    plan, watch = Plan(expected_disagreement=0.1, max_extra_disagreement=0.1, of_replies=True), Watch()
    for number in range(60):
        watch.request(failed=False, milliseconds=1)
        watch.read(Apart(4 + number % 2, 2) if number % 3 == 0 else Apart(5, 100))  # a mean of theirs would be above 0.7
    assert breach(plan, watch.window(500, plan.allowed_disagreement)) is None
    stricter = replace(plan, max_extra_disagreement=-0.08)
    assert "60 replies are 0.072 bits per byte apart" in (breach(stricter, watch.window(500, stricter.allowed_disagreement)) or "")
