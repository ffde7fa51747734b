from __future__ import annotations

import random

import numpy as np
import pytest

from llm_assets.corpus.recogniser import ensemble, names, networks, sources
from llm_assets.corpus.recogniser.examples import Example
from llm_assets.training.recogniser import train

MARKED = [Example("记者李明报道,天气很好", ((2, 4),)), Example("经理欧阳建华也来了。", ((2, 6),)), Example("今天的天气很好,大家高兴。")]
REVIEWS = [Example("房间很干净,服务员很热情。"), Example("我买了高跟鞋。")]


@pytest.fixture
def material(monkeypatch: pytest.MonkeyPatch) -> train.Material:
    monkeypatch.setattr(sources, "people", lambda: frozenset(["王伟", "张建国"]))
    monkeypatch.setattr(sources, "dictionary", lambda: frozenset(["高兴", "方便面", "安静", "天气"]))
    return train.Material(MARKED, REVIEWS, REVIEWS[:1], [Example(f"第{number}天,高兴") for number in range(500)], [Example("李明来了", ((0, 2),))])


def test_lessons_hold_names_and_texts_without(material: train.Material) -> None:
    parts = train.lessons(material, random.Random(0), 40)
    assert [importance for _, importance in parts] == [1.0, 1.0, 0.5, 0.5, 0.5]
    planted = parts[-1][0]
    assert len(planted) == 40 * 5 + 20 * 3 + 20 * 2
    assert sum(bool(example.names) for example in planted) > 0.8 * len(planted)
    assert all(not example.names for example in parts[1][0])


def test_networks_learn_from_what_is_left_in_doubt(material: train.Material) -> None:
    parts = train.lessons(material, random.Random(0), 40)
    weights = train.regress(parts)
    filled = ensemble.shipped().filled
    points = np.array([ord("李"), ord("明")], np.uint16)
    lesson = train.doubtful(parts, weights, filled, points)
    everything = sum(len(train.regression.judged(examples).is_name) for examples, _ in parts)
    in_all = sum(train.regression.judged(examples).is_name.sum() for examples, _ in parts)
    assert 0 < len(lesson.is_name) < everything and lesson.is_name.sum() == in_all
    assert set(lesson.rows[lesson.seen.points == ord("李")].tolist()) == {2}
    assert set(lesson.rows[lesson.seen.points == 0].tolist()) == {0}
    assert lesson.importance.max() in (1.0, 4.0) and lesson.importance.min() == 0.5
    assert np.array_equal(lesson.around[:, networks.BEFORE : networks.BEFORE + 2], lesson.rows[:, networks.SIDE - 4 : networks.SIDE - 2])


def test_a_reader_learns_from_less_of_what_is_sure(material: train.Material) -> None:
    parts = train.lessons(material, random.Random(0), 40)
    weights, first = ensemble.shipped(), ensemble.shipped().networks[0]
    lesson = train.doubtful(parts, names._weights()[0], weights.filled, np.flatnonzero(weights.rows > 1).astype(np.uint16))
    odds = networks.forward(first, networks.terms(lesson.rows, lesson.seen), lesson.seen.form)
    sure = np.count_nonzero(np.where(lesson.is_name, odds > train.SURE_NAME, odds < train.SURE_NONE))
    less = train.hard(lesson, first)
    left = len(less.is_name) - (len(lesson.is_name) - sure)
    assert sure > 40 and 0.1 * sure < left < 0.4 * sure
    assert less.importance.sum() == pytest.approx(lesson.importance.sum(), rel=0.4)
    assert len(less.around) == len(less.rows) == len(less.seen.form) == len(less.is_name)


def test_the_threshold_keeps_false_masks_rare_in_both_kinds_of_text(material: train.Material, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [np.linspace(-3, 3, 500, dtype=np.float32), np.linspace(-9, 9, 700, dtype=np.float32)]
    scores = iter(kinds)
    monkeypatch.setattr(train, "_likeliest", lambda texts, *_: next(scores))
    nameless = [Example(f"第{number}天,高兴") for number in range(700)]
    border = train.threshold(material._replace(msra=[*nameless, MARKED[0]]), names._weights()[0], ensemble.shipped())
    assert [np.count_nonzero(kind > border) for kind in kinds] == [0, 2]  # of 700 texts two may get a mask


def test_the_likeliest_candidate_of_each_text_counts() -> None:
    weights, _ = names._weights()
    likeliest = train._likeliest(["联系人:张建国,电话不变", "房间很好", "谢谢王伟明和李建华"], weights, ensemble.shipped())
    assert likeliest[1] == -np.inf and likeliest[0] > 0 and likeliest[2] > 0


def test_a_character_without_embedding_is_left_out(material: train.Material) -> None:
    class Known:
        rows = dict.fromkeys("李明0a的", 1)

    frequent = train.frequent([Example("李明b1😀的龘"), Example("0a")], Known())  # type: ignore[arg-type]
    assert material.reviews and set("0a的李明") <= set(frequent) and not set("b1😀龘") & set(frequent)
