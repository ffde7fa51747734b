from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_assets.corpus.recogniser.networks import PLACES, Window
from llm_assets.corpus.recogniser.recurrent import forward, unpack
from llm_assets.training.recogniser import recurrent
from llm_assets.training.recogniser.networks import Lesson
from llm_assets.training.recogniser.segmenter import UNITS

ROWS = 50


def _lesson(count: int = 600) -> Lesson:
    """Candidates that are names where the character before them is the seventh; some stand at the beginning or the end of a text."""
    rng = np.random.default_rng(0)
    around = rng.integers(2, ROWS, (count, PLACES))
    is_name = rng.random(count) < 0.5
    around[:, 9] = np.where(is_name, 7, 8)
    around[::3, :6] = around[1::3, 17:] = 0
    seen = Window(around.astype(np.uint32), np.zeros(around.shape, np.uint8), rng.integers(0, 4, count), around.astype(np.uint32))
    return Lesson(seen, around, around, is_name, np.ones(count, np.float32))


def _start() -> tuple[np.ndarray, list[recurrent.Layer]]:
    torch.manual_seed(5)
    embedding = np.random.default_rng(1).normal(0, 0.5, (ROWS, UNITS)).astype(np.float32)
    shapes = [((1 + number // 2) * UNITS, 3 * UNITS) for number in range(4)]
    return embedding, [
        (torch.randn(shape) * 0.1, torch.zeros(3 * UNITS), torch.randn(UNITS, 2 * UNITS) * 0.1, torch.randn(UNITS, UNITS) * 0.1) for shape in shapes
    ]


def test_training_learns_and_integers_score_as_the_network_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "BATCH", 20)
    monkeypatch.setattr(recurrent, "RATES", (6e-3,))
    lesson = _lesson()
    scorer = recurrent.fit(*_start(), [lesson])
    with torch.no_grad():
        expected = scorer(*recurrent._tensors(lesson)).numpy()
    assert ((expected > 0) == lesson.is_name).mean() > 0.98
    arrays = recurrent.integers(scorer, lesson)
    assert {name: array.dtype for name, array in arrays.items()}["states_0"] == np.int8
    scored = forward(unpack(arrays), lesson.around, lesson.seen.form)
    assert np.abs(scored - expected).mean() < 0.05 * np.abs(expected).mean()


def test_a_lesson_can_be_repeated_from_the_weights_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "BATCH", 60)
    monkeypatch.setattr(recurrent, "BEGUN", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command does: several threads add up in any order
    try:
        both = recurrent.fit(*_start(), [_lesson(180), _lesson(120)])
        monkeypatch.setattr(recurrent, "RATES", recurrent.RATES[:1])
        again = recurrent.fit(*_start(), [_lesson(180)])
        one = again.output.weight.clone()
        recurrent.learn(again.train(), _lesson(120), 5e-4)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(both.output.weight, again.output.weight) and not torch.equal(one, again.output.weight)


def test_a_share_of_the_first_weights_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "BATCH", 60)
    monkeypatch.setattr(recurrent, "RATES", (1e-2,))
    embedding, layers = _start()
    learnt = []
    for share in (0.0, 0.25, 1.0):
        monkeypatch.setattr(recurrent, "BEGUN", share)
        learnt.append(recurrent.fit(embedding, layers, [_lesson(180)]).recurrences[3].gates.detach())
    assert torch.equal(learnt[2], layers[3][2]) and (learnt[0] - learnt[2]).abs().max() > 1e-3
    assert torch.allclose(learnt[1], 0.75 * learnt[0] + 0.25 * learnt[2], atol=1e-6)
