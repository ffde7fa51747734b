"""How long one answer takes, and how many answers a second gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Answers = TypeVar("Answers")
Classify = Callable[[Sequence[str]], object]
BATCH = 64  # texts at once where many are scored


def single_text_latency(classify: Classify, texts: Sequence[str], calls: int = 60, warmup: int = 5) -> dict[str, float]:
    """Milliseconds for one text at a time: ``p50_ms``, ``p99_ms`` over ``calls`` calls that cycle through ``texts``.

    With 60 calls the 99th percentile is close to the slowest call; it is there to show outliers, not to size a service.
    """
    return alternating_latency({"": classify}, texts, calls, warmup)[""]


def alternating_latency(models: Mapping[str, Classify], texts: Sequence[str], calls: int = 60, warmup: int = 5) -> dict[str, dict[str, float]]:
    """``single_text_latency`` of several models, which take turns at every text: what else the machine does falls on all alike."""
    import numpy

    times: dict[str, list[float]] = {name: [] for name in models}
    for call in range(warmup + calls):
        text = texts[call % len(texts)]
        for name, classify in models.items():
            started = time.perf_counter()
            classify([text])
            times[name].append(1000 * (time.perf_counter() - started))
    found = {name: numpy.percentile(values[warmup:], (50, 99)) for name, values in times.items()}
    return {name: {"p50_ms": round(float(p50), 6), "p99_ms": round(float(p99), 6)} for name, (p50, p99) in found.items()}  # a vote takes < 1 µs


def throughput(classify: Callable[[Sequence[str]], Answers], texts: Sequence[str]) -> tuple[Answers, float]:
    """The answers to all ``texts``, and how many texts were answered a second."""
    started = time.perf_counter()
    answers = classify(texts)
    return answers, round(len(texts) / (time.perf_counter() - started), 1)
