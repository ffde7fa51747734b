from __future__ import annotations

import time

from llm_assets.evaluation.latency import single_text_latency


def test_one_text_a_call_and_warm_up_left_out() -> None:
    calls: list[list[str]] = []

    def classify(texts: list[str]) -> None:
        calls.append(texts)
        time.sleep(0.05 if len(calls) <= 2 else 0.002)

    found = single_text_latency(classify, ["a", "b"], calls=10, warmup=2)
    assert calls == [["a"], ["b"]] * 6
    assert 2 <= found["p50_ms"] <= found["p99_ms"] < 50
