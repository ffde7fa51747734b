from __future__ import annotations

import numpy as np
import pytest

from llm_assets.corpus.recogniser import ensemble, recurrent
from llm_assets.corpus.recogniser.networks import PLACES


@pytest.fixture
def reader() -> recurrent.Reader:
    return ensemble.shipped().reader


def _rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2000, (count, PLACES))


def test_a_reader_sees_all_places_and_no_other_candidate(reader: recurrent.Reader) -> None:
    rows, form = _rows(6), np.array([0, 1, 2, 3, 0, 1])
    odds = recurrent.forward(reader, rows, form)
    changed = rows.copy()
    changed[1, [0, -1]] = 5
    again = recurrent.forward(reader, changed, form)
    assert (odds != again).tolist() == [False, True, False, False, False, False]


def test_nothing_beyond_the_text_is_read(reader: recurrent.Reader) -> None:
    rows = _rows(1)
    rows[0, :6] = rows[0, 20:] = 0
    other = reader._replace(embedding=reader.embedding.copy())
    other.embedding[0] = 99
    form = np.array([1])
    assert recurrent.forward(reader, rows, form).tolist() == recurrent.forward(other, rows, form).tolist()


def test_the_hidden_layer_sees_both_ends_of_a_candidate() -> None:
    places = [tuple(int(place[0]) for place in recurrent.looked_at(np.array([form]))) for form in range(4)]
    assert places == [(9, 10, 11, 12), (9, 10, 12, 13), (9, 10, 12, 13), (9, 10, 13, 14)]


def test_sums_stay_where_float32_is_exact(reader: recurrent.Reader) -> None:
    first = float(np.abs(reader.embedding).max())
    for number, layer in enumerate(reader.layers):
        assert ((first if number < 2 else recurrent.STEPS) * np.abs(layer.inputs).sum(axis=0)).max() < 1 << 24
        assert (recurrent.STEPS * np.abs(layer.states).sum(axis=0)).max() < 1 << 24
        assert all(np.array_equal(np.rint(weights), weights) for weights in (layer.inputs, layer.states))
    inputs = recurrent.STEPS / recurrent.FINER * np.abs(reader.hidden).sum(axis=0)
    assert (inputs + np.abs(reader.hidden_bias).max()).max() < 1 << 24
