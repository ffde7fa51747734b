"""How much of a run's time goes into its records: hashes, manifests, ledger, MLflow, OpenLineage, pages of lineage; not into the work itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_state = threading.local()


@contextmanager
def keeping_records() -> Iterator[None]:
    """Count the time of this block as spent on records; of nested ones the outermost counts. Also a decorator."""
    depth, started = getattr(_state, "depth", 0), time.perf_counter()
    _state.depth = depth + 1
    try:
        yield
    finally:
        _state.depth = depth
        if depth == 0:
            _state.seconds = seconds_on_records() + time.perf_counter() - started


def seconds_on_records() -> float:
    """Seconds that this thread spent on records so far."""
    return float(getattr(_state, "seconds", 0.0))
