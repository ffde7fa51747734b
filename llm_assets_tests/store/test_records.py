from __future__ import annotations

import threading
import time

import pytest

from llm_assets.store.records import keeping_records, seconds_on_records


def test_nested_blocks_count_once_and_errors_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    before = seconds_on_records()
    with keeping_records(), keeping_records():  # from 0 to 3, the inner one from 1
        pass
    with pytest.raises(ValueError), keeping_records():
        raise ValueError
    assert seconds_on_records() - before == pytest.approx(3.0 + 2.0)


def test_each_thread_has_a_tally_of_its_own() -> None:
    with keeping_records():
        time.sleep(0.001)
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(seconds_on_records()))
    thread.start()
    thread.join()
    assert found == [0.0] and seconds_on_records() > 0
