from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.corpus.contamination import EvaluationNgrams, Overlap

REVIEW = "这家酒店的位置很好,离地铁站只有五分钟,早餐种类也多。"
OTHER = "这本书的内容非常空洞,读完之后什么也没有学到,浪费时间。"


def held(training: list[str], evaluation: list[str], **config: float) -> list[int]:
    return EvaluationNgrams(evaluation, Overlap(**config)).held(training).tolist()


def test_an_evaluation_text_inside_a_long_document_is_found() -> None:
    long = "今天我想写一篇很长的游记。" * 30 + REVIEW.replace(",", "!") + "之后我们去了外滩,人山人海。" * 30
    assert held([OTHER * 20, long, REVIEW], [OTHER[:10], REVIEW]) == [-1, 1, 1]


def test_a_part_is_held_from_the_stated_share_on() -> None:
    half = REVIEW[: len(REVIEW) // 2]
    assert held([half], [REVIEW]) == [-1]
    assert held([half], [REVIEW], share=0.1, characters=6) == [0]


def test_of_several_the_one_it_holds_most_of_is_named_and_shared_ngrams_count_for_each() -> None:
    variant = REVIEW.replace("五分钟", "两三步")
    assert held([REVIEW], [variant, REVIEW], share=0.3) == [1]
    assert held([variant], [variant, REVIEW], share=0.3) == [0]


@pytest.mark.parametrize(("training", "evaluation"), [([], [REVIEW]), ([REVIEW], []), ([""], [REVIEW]), ([REVIEW], ["短"])])
def test_nothing_to_find(training: list[str], evaluation: list[str]) -> None:
    assert held(training, evaluation) == [-1] * len(training)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("好坏酒店书天地人", min_size=14, max_size=30), min_size=1, max_size=5), st.integers(0, 100))
def test_whatever_is_planted_is_found(evaluation: list[str], seed: int) -> None:
    rng = random.Random(seed)
    planted = rng.randrange(len(evaluation))
    found = held(["甲乙丙丁" * 8 + evaluation[planted] + "子丑寅卯" * 8, "甲乙丙丁" * 8], evaluation)
    assert found[0] >= 0 and found[1] == -1
