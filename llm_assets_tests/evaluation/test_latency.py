from __future__ import annotations

import time

from llm_assets.evaluation.latency import alternating_latency, single_text_latency, throughput


def test_one_text_a_call_and_warm_up_left_out() -> None:
    calls: list[list[str]] = []

    def classify(texts: list[str]) -> None:
        calls.append(texts)
        time.sleep(0.05 if len(calls) <= 2 else 0.002)

    found = single_text_latency(classify, ["a", "b"], calls=10, warmup=2)
    assert calls == [["a"], ["b"]] * 6
    assert 2 <= found["p50_ms"] <= found["p99_ms"] < 50


def test_models_take_turns() -> None:
    calls: list[str] = []
    found = alternating_latency({"one": lambda texts: calls.append("one"), "two": lambda texts: calls.append("two")}, ["a"], calls=3, warmup=1)
    assert calls == ["one", "two"] * 4 and set(found) == {"one", "two"}


def test_throughput_is_texts_by_seconds() -> None:
    answers, speed = throughput(lambda texts: time.sleep(0.05) or len(texts), ["a"] * 10)
    assert answers == 10 and 50 < speed <= 200
