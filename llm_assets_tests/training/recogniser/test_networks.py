from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_assets.corpus.recogniser import lexicon
from llm_assets.corpus.recogniser.networks import SIDE, Window, forward, terms, unpack
from llm_assets.training.recogniser import networks

ROWS = 50


def _lesson(count: int = 600) -> networks.Lesson:
    """Candidates that are names where the character before them is the seventh."""
    rng = np.random.default_rng(0)
    rows = rng.integers(2, ROWS, (count, 2 * SIDE))
    is_name = rng.random(count) < 0.5
    rows[:, SIDE - 5] = np.where(is_name, 7, 8)
    marks, form = rng.integers(0, lexicon.MARKS, rows.shape).astype(np.uint8), rng.integers(0, 4, count)
    seen = Window(rows.astype(np.uint32), marks, form, rows.astype(np.uint32))
    return networks.Lesson(seen, rows, rows, is_name, np.ones(count, np.float32))


def _start() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.5, (ROWS, networks.VALUES)).astype(np.float32)


def test_training_learns_and_integers_score_as_the_network_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "EPOCHS", 12)
    monkeypatch.setattr(networks, "BATCH", 60)
    lesson = _lesson()
    scorer = networks.fit(_start(), lesson, 0)
    with torch.no_grad():
        expected = scorer(*networks._tensors(lesson.seen, lesson.rows)).numpy()
    assert ((expected > 0) == lesson.is_name).mean() > 0.98
    arrays = networks.integers(scorer, lesson)
    assert {name: array.dtype for name, array in arrays.items()}["hidden"] == np.int8
    scored = forward(unpack(arrays), terms(lesson.rows, lesson.seen), lesson.seen.form)
    assert np.abs(scored - expected).mean() < 0.05 * np.abs(expected).mean()


def test_the_same_seed_gives_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "EPOCHS", 1)
    monkeypatch.setattr(networks, "BATCH", 60)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command does: several threads add up in any order
    try:
        one, same, other = (networks.fit(_start(), _lesson(), seed).output.weight for seed in (0, 0, 1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_embeddings_start_from_their_principal_components() -> None:
    known = np.random.default_rng(2).normal(size=(200, 128)).astype(np.float32)
    start = networks.start_embeddings(known, list(range(100)), 150)
    assert start.shape == (102, networks.VALUES) and not start[0].any() and start[1].any()
    centred = start[2:] - start[2:].mean(axis=0)
    overlap = np.abs(np.corrcoef(centred.T) - np.eye(networks.VALUES)).max()
    assert overlap < 1e-3
