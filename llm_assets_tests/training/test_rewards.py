"""What each rule says of a reply, by hand; and that none leaves 0 to 1 whatever is said."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llm_assets.corpus.archives import SourceError
from llm_assets.training.rewards import AnyReward, Reply, Reward, rewarded, scripts

RULES: tuple[dict[str, Any], ...] = (
    {"kind": "ends"},
    {"kind": "length", "least": 3, "most": 10},
    {"kind": "same_script"},
    {"kind": "no_repetition", "size": 2},
    {"kind": "mentions", "words": ["亲", "Dear"]},
    {"kind": "avoids", "words": ["guaranteed"]},
)


def rule(**settings: Any) -> Reward:
    made: Reward = TypeAdapter[Reward](AnyReward).validate_python(settings)
    return made


def worth(settings: dict[str, Any], text: str, asked: str = "什么时候发货", ended: bool = True) -> float:
    return rule(**settings).of([{"role": "user", "content": asked}], Reply(text, ended))


@pytest.mark.parametrize(
    "settings, text, value",
    [
        (RULES[1], "", 0.0), (RULES[1], "ab", 2 / 3), (RULES[1], "abc", 1.0), (RULES[1], "a" * 10, 1.0), (RULES[1], "a" * 15, 0.5),
        (RULES[1], "a" * 20, 0.0), (RULES[1], "a" * 99, 0.0),
        (RULES[2], "明天", 1.0), (RULES[2], "明天ok", 0.5), (RULES[2], "tomorrow", 0.0), (RULES[2], "...", 0.0),
        (RULES[3], "abab", 2 / 3), (RULES[3], "aaaaa", 0.25), (RULES[3], "abcd", 1.0), (RULES[3], "a", 1.0), (RULES[3], "", 1.0),
        (RULES[4], "dear customer", 1.0), (RULES[4], "hello", 0.0), (RULES[4], "亲，明天", 1.0),
        (RULES[5], "GUARANTEED tomorrow", 0.0), (RULES[5], "perhaps", 1.0),
    ],
)  # fmt: skip
def test_rules_by_hand(settings: dict[str, Any], text: str, value: float) -> None:
    assert worth(settings, text) == pytest.approx(value)


def test_a_reply_that_was_cut_off_does_not_end() -> None:
    assert worth(RULES[0], "yes") == 1.0 and worth(RULES[0], "yes", ended=False) == 0.0


def test_the_script_is_that_of_most_letters_of_the_question() -> None:
    assert worth(RULES[2], "明天", asked="iPhone什么时候发货呢亲爱的") == 1.0 and worth(RULES[2], "明天", asked="what?") == 0.0
    assert worth(RULES[2], "明天", asked="???") == 1.0  # nothing to go by
    assert scripts("亲 Aл1!") == {"CJK": 1, "LATIN": 1, "CYRILLIC": 1}


@given(asked=st.text(max_size=30), text=st.text(max_size=60), ended=st.booleans(), weights=st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_every_rule_and_their_mean_stay_between_0_and_1(asked: str, text: str, ended: bool, weights: list[float]) -> None:
    rules = [rule(**settings, weight=weight) for settings, weight in zip(RULES, weights, strict=True)]
    found = rewarded(rules, [{"role": "user", "content": asked}], Reply(text, ended))
    assert set(found) == {"reward", *(f"reward_{settings['kind']}" for settings in RULES)}
    parts = [found[f"reward_{settings['kind']}"] for settings in RULES]
    assert all(0 <= part <= 1 for part in parts) and min(parts) - 1e-9 <= found["reward"] <= max(parts) + 1e-9


def test_weights_are_shares() -> None:
    rules = [rule(kind="ends", weight=3), rule(kind="mentions", words=["x"], weight=1)]
    assert rewarded(rules, [{"role": "user", "content": "a"}], Reply("b", True)) == {"reward": 0.75, "reward_ends": 1.0, "reward_mentions": 0.0}


def test_a_function_of_ones_own_and_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shop_rewards")
    module.polite = lambda prompt, reply: float(prompt[-1]["content"] in reply)  # type: ignore[attr-defined]
    module.loud = lambda prompt, reply: float("nan")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_rewards", module)
    polite = {"kind": "own", "name": "polite", "function": "shop_rewards:polite"}
    assert worth(polite, "明天发货", asked="发货") == 1.0 and rule(**polite).title == "polite"
    with pytest.raises(ValueError, match="own reward loud: shop_rewards:loud gave nan; a reward is a number from 0 to 1"):
        worth({"kind": "own", "name": "loud", "function": "shop_rewards:loud"}, "x")
    with pytest.raises(SourceError, match="own reward loud: shop_rewards:quiet cannot be imported"):
        worth({"kind": "own", "name": "loud", "function": "shop_rewards:quiet"}, "x")
    for kind in ("mentions", "avoids"):
        with pytest.raises(ValidationError, match="at least 1 character"):
            TypeAdapter(AnyReward).validate_python({"kind": kind, "words": [""]})
    with pytest.raises(ValidationError, match=r"least \(9\) must not be above most \(3\)"):
        rule(kind="length", least=9, most=3)
