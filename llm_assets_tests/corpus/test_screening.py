from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.corpus.codepoints import hash_texts, letters
from llm_assets.corpus.screening import RULES, LanguageRules, Texts, first_rule

RULES_ZH = LanguageRules(
    scripts=["Han"], boilerplate=["免费注册 网站导航", "a.b"], maximum_characters=200, maximum_run=20, toxic_words=["白痴", "垃圾"]
)
GOOD = "这家酒店的位置很好,早餐也不错,下次还会来住的。"
BAD = {
    "framing": "首页 免费注册 网站导航 关于我们",
    "too_short": "不错",
    "too_long": GOOD * 10,
    "wrong_script": "The position of this hotel is very bad 很差",
    "too_many_symbols": "好!!!!!!!!!!!!!!!!!!差~~~",
    "repetitive": "物流太慢了," * 12,
    "repeated_lines": "首页\n今日天气\n首页\n今日天气\n首页\n今日天气\n联系我们的方式都在这一页上面请看",
    "gibberish": "这个东西真的很好用啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊我还会再买的推荐给大家",
    "toxic": "白痴白痴,卖的全是垃圾,客服也不理人",
}


def judged(rule: str, *texts: str) -> list[bool]:
    return [bool(value) for value in RULES[rule](Texts(list(texts)), RULES_ZH)]


@pytest.mark.parametrize(("rule", "text"), BAD.items())
def test_each_rule_drops_its_own_and_lets_a_good_text_pass(rule: str, text: str) -> None:
    assert judged(rule, text, GOOD, text) == [True, False, True]
    assert first_rule(Texts([GOOD, text]), RULES_ZH) == [None, rule]


def test_a_text_that_stands_too_often_is_dropped_whatever_its_punctuation() -> None:
    texts = ["今日天气预报", "今日天气预报!", "今日 天气预报", GOOD]
    often = np.sort(hash_texts(letters(["今日天气预报"])))
    assert first_rule(Texts(texts, often), RULES_ZH) == ["frequent"] * 3 + [None]


def test_another_language_in_the_same_script_is_identified() -> None:
    english = LanguageRules(scripts=["Latin"], identified="en")
    texts = ["The breakfast was good and the staff were friendly.", "Das Frühstück war gut und das Personal war sehr freundlich.", "ok then"]
    assert first_rule(Texts(texts), english) == [None, "wrong_language", None]


def test_an_insult_is_a_word_and_no_part_of_one() -> None:
    english = LanguageRules(scripts=["Latin"], toxic_words=["ass"], maximum_toxic_words=0)
    assert first_rule(Texts(["first class passenger", "You ASS!"]), english) == [None, "toxic"]


def test_keys_struck_at_random_are_gibberish_and_a_long_word_is_not() -> None:
    english = LanguageRules(scripts=["Latin"])
    texts = ["sdfghjkl jkvcxzbnm the sdlkfjghs dfkgjhsd", "He lives in Knightsbridge; his rhythms, and the HTTPS strengths, are known.", ""]
    assert [bool(value) for value in RULES["gibberish"](Texts(texts), english)] == [True, False, False]


def test_phrases_are_no_patterns() -> None:
    assert judged("framing", "axb") == [False]


def test_no_text_at_all() -> None:
    assert first_rule(Texts([]), RULES_ZH) == []
    assert first_rule(Texts([""]), RULES_ZH) == ["too_short"]


def test_a_mask_is_no_word_of_another_script() -> None:
    assert first_rule(Texts(["[NAME]和[NAME]说好", "[NAME]、[PHONE]"]), RULES_ZH) == [None, "too_short"]


def test_english_has_its_own_script() -> None:
    english = LanguageRules(scripts=["Latin"], minimum_script_share=0.8)
    assert first_rule(Texts(["A fine hotel near the station.", GOOD]), english) == [None, "wrong_script"]


ANY = st.lists(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("好坏啊\n!a")), max_size=80), max_size=6)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(texts=ANY)
def test_no_text_crashes_a_rule_and_neighbours_change_no_verdict(rule: str, texts: list[str]) -> None:
    verdicts = judged(rule, *texts)
    assert verdicts == [judged(rule, text)[0] for text in texts]


@settings(max_examples=50, deadline=None)
@given(ANY)
def test_repetition_counts_different_trigrams_exactly(texts: list[str]) -> None:
    def share(text: str) -> float:
        return len({text[place : place + 3] for place in range(len(text) - 2)}) / (len(text) - 2)

    assert judged("repetitive", *texts) == [len(text) >= 30 and share(text) < RULES_ZH.minimum_distinct_trigrams for text in texts]
