from __future__ import annotations

import random

import numpy as np

from llm_assets.corpus.recogniser import names, regression
from llm_assets.corpus.recogniser.candidates import candidates, padded
from llm_assets.corpus.recogniser.examples import Example, Inventor, joined, word_rows

KNOWN = ["江建华", "欧阳小", "王建国", "李小明", "张卫东"]


def test_candidates_are_judged_but_for_those_of_which_nobody_knows() -> None:
    some = regression.judged([Example("李明和克林顿", ((0, 2),), ((3, 6),)), Example("张望")])
    stretches = ["".join(map(chr, some.values[start:end])) for start, _, end in zip(*some.found, strict=True)]
    assert dict(zip(stretches, some.is_name.tolist(), strict=True)) == {"李明": True, "张望": False, "李明和": False}


def test_training_learns_names_from_words() -> None:
    rng = random.Random(0)
    inventor = Inventor(KNOWN, rng)
    learn = [joined([("记者", "text"), inventor.name(), ("说高兴就好", "text")]) for _ in range(200)]
    some = regression.judged([*learn, *([Example("房间很干净,我们方便了")] * 20), *word_rows(["高兴", "方便面"], inventor, rng)])
    weights = regression.fit(regression.columns(some), some.is_name, np.ones(len(some.is_name)))
    text = padded(["记者张小明说高兴就好"])
    found = candidates(text.values)
    odds = sum(weights[column].astype(np.int64) for column in names.features(text.values, found))
    best = int(np.argmax(odds))
    assert (found.start[best] - text.starts[0], found.end[best] - text.starts[0]) == (2, 5)
    assert weights.shape == (1 << names.BITS,)
