from __future__ import annotations

from llm_assets.serving.metrics import Metrics
from llm_assets.serving.pulse import MINUTES, Pulse


class Clock:
    now = 600.0

    def __call__(self) -> float:
        return self.now


def test_requests_and_failures_stand_in_their_minutes() -> None:
    metrics, clock = Metrics(), Clock()
    pulse = Pulse(metrics, clock)
    pulse.look()
    for status in (200, 200, 429, 503):
        metrics.answered("tiny", "tiny-1", status, 0.01, 3)
    metrics.answered("other", "other-1", 200, 0.01, 3)
    clock.now = 659
    pulse.look()
    clock.now = 660
    pulse.look()
    metrics.answered("tiny", "tiny-2", 200, 0.01, 3)
    assert pulse.minutes("tiny") == [(600, 4, 1), (660, 1, 0)] and pulse.minutes("other") == [(600, 1, 0), (660, 0, 0)]
    assert pulse.minutes("nobody") == [(600, 0, 0), (660, 0, 0)]


def test_an_hour_is_kept() -> None:
    metrics, clock = Metrics(), Clock()
    pulse = Pulse(metrics, clock)
    for minute in range(2 * MINUTES):
        clock.now = 60.0 * minute
        pulse.look()
        metrics.answered("tiny", "tiny-1", 200, 0.01, 3)
    found = pulse.minutes("tiny")
    assert len(found) == MINUTES + 1 and [minute.requests for minute in found] == [1] * len(found) and found[-1].at == 60 * (2 * MINUTES - 1)
