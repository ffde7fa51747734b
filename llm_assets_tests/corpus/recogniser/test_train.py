from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.recogniser import names
from llm_assets.corpus.recogniser.examples import (
    Example,
    Inventor,
    inserted,
    introduced,
    joined,
    peopled,
    renamed,
    tagged_sentences,
    word_rows,
)
from llm_assets.corpus.recogniser.train import STEP, train

LINE = "总书记/n  江/nr  建华/nr  说/v  。/w  [新华社/nt  记者/n]nt  欧阳/nr  小/nr  、/w  克林顿/nr  １９/m"


def test_names_are_read_from_the_tags() -> None:
    first, second = tagged_sentences(LINE)
    assert first == Example("总书记江建华说。", ((3, 6),), ())
    assert second.text == "新华社记者欧阳小、克林顿19"
    assert [second.text[start:end] for start, end in second.names] == ["欧阳小"]
    assert [second.text[start:end] for start, end in second.unknown] == ["克林顿"]


@given(st.text(alphabet="我们的酒店很好,。服务员", max_size=30), st.integers(0, 1000))
def test_planted_names_stand_where_they_are_said_to_stand(text: str, seed: int) -> None:
    rng = random.Random(seed)
    inventor = Inventor(tagged_sentences(LINE), rng)
    for make in (inserted, introduced, peopled):
        example = make(text, inventor, rng)
        assert all(2 <= end - start <= 4 for start, end in example.names)
        rest = "".join(character for place, character in enumerate(example.text) if not any(start <= place < end for start, end in example.names))
        assert make is not inserted or rest == text
    again = renamed(joined([("经理", "text"), ("李明", "name"), ("和", "text"), ("克林顿", "unknown")]), inventor, rng)
    assert again.text.startswith("经理") and again.text.endswith("和克林顿") and len(again.unknown) == 1


def test_training_learns_names_from_words() -> None:
    rng = random.Random(0)
    inventor = Inventor(tagged_sentences(LINE + " 王/nr 建国/nr 、/w 李/nr 小明/nr 、/w 张/nr 卫东/nr"), rng)
    learn = [joined([("记者", "text"), inventor.name(), ("说高兴就好", "text")]) for _ in range(200)]
    weights = train(learn, ["房间很干净,我们方便了"] * 20, ["高兴", "方便面"])
    text = names.padded(["记者张小明说高兴就好"])
    found = names.candidates(text.values)
    odds = sum(weights[column].astype(np.int64) for column in names.features(text.values, found)) * STEP
    best = int(np.argmax(odds))
    assert (found.start[best] - text.starts[0], found.end[best] - text.starts[0]) == (2, 5)
    assert weights.shape == (1 << names.BITS,)
    assert len(list(word_rows(["高兴"] * 45, inventor, rng))) == 3
