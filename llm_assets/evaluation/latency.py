"""How long one answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def single_text_latency(classify: Callable[[Sequence[str]], object], texts: Sequence[str], calls: int = 60, warmup: int = 5) -> dict[str, float]:
    """Milliseconds for one text at a time: ``p50_ms``, ``p99_ms`` over ``calls`` calls that cycle through ``texts``.

    With 60 calls the 99th percentile is close to the slowest call; it is there to show outliers, not to size a service.
    """
    import numpy

    times = []
    for call in range(warmup + calls):
        text = texts[call % len(texts)]
        started = time.perf_counter()
        classify([text])
        times.append(1000 * (time.perf_counter() - started))
    p50, p99 = numpy.percentile(times[warmup:], (50, 99))
    return {"p50_ms": round(float(p50), 6), "p99_ms": round(float(p99), 6)}  # a majority vote takes less than a microsecond
