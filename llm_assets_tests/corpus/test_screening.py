from __future__ import annotations

import pyarrow as pa
import pytest

from llm_assets.corpus.screening import RULES, LanguageRules, first_rule

RULES_ZH = LanguageRules(scripts=["Han"], boilerplate=["免费注册 网站导航", "a.b"], maximum_occurrences=3, maximum_characters=200)
GOOD = "这家酒店的位置很好,早餐也不错,下次还会来住的。"
BAD = {
    "framing": "首页 免费注册 网站导航 关于我们",
    "too_short": "不错",
    "too_long": GOOD * 10,
    "wrong_language": "The position of this hotel is very bad 很差",
    "too_many_symbols": "好!!!!!!!!!!!!!!!!!!差~~~",
    "repetitive": "物流太慢了," * 12,
}


@pytest.mark.parametrize(("rule", "text"), BAD.items())
def test_each_rule_drops_its_own_and_lets_a_good_text_pass(rule: str, text: str) -> None:
    assert RULES[rule](pa.array([text, GOOD]), RULES_ZH).to_pylist() == [True, False]
    assert first_rule(pa.array([GOOD, text]), RULES_ZH) == [None, rule]


def test_a_text_that_stands_too_often_is_dropped_whatever_its_punctuation() -> None:
    texts = ["今日天气预报", "今日天气预报!", "今日天气预报。", "今日 天气预报", GOOD, GOOD, GOOD]
    assert first_rule(pa.array(texts), RULES_ZH) == ["frequent"] * 4 + [None] * 3


def test_phrases_are_no_patterns() -> None:
    assert not RULES["framing"](pa.array(["axb"]), RULES_ZH)[0].as_py()


def test_no_text_at_all() -> None:
    assert first_rule(pa.array([], pa.string()), RULES_ZH) == []
    assert first_rule(pa.array([""]), RULES_ZH) == ["too_short"]


def test_english_has_its_own_script() -> None:
    english = LanguageRules(scripts=["Latin"], minimum_script_share=0.8)
    assert first_rule(pa.array(["A fine hotel near the station.", GOOD]), english) == [None, "wrong_language"]
