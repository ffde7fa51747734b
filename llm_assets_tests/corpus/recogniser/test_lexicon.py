from __future__ import annotations

import numpy as np

from llm_assets.corpus.recogniser import lexicon


def _points(text: str) -> np.ndarray:
    return np.array([list(map(ord, text))], np.uint32)


def test_words_are_marked_where_they_begin_and_end() -> None:
    filled = lexicon.build(["高兴", "高跟鞋", "万事如意", "a1", "超过四个字"])
    assert lexicon.marks(filled, _points("他高兴买高跟鞋")).tolist() == [[0, 1, 8, 0, 2, 0, 16]]
    assert lexicon.marks(filled, _points("万事如意,a1")).tolist() == [[4, 0, 0, 32, 0, 0, 0]]


def test_few_runs_that_are_no_word_are_taken_for_one() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(lexicon.FIRST, lexicon.LAST, (250_000, 3), dtype=np.uint32)
    filled = lexicon.build("".join(map(chr, row)) for row in points.tolist())
    taken = lexicon.marks(filled, rng.integers(lexicon.FIRST, lexicon.LAST, (20_000, 3), dtype=np.uint32))[:, 0] & 2
    assert 0 < np.count_nonzero(taken) / len(taken) < 0.03
    assert (lexicon.marks(filled, points)[:, 0] & 2).all()
