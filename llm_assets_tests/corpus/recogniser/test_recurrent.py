from __future__ import annotations

import numpy as np
import pytest

from llm_assets.corpus.recogniser import ensemble, recurrent
from llm_assets.corpus.recogniser.networks import PLACES
from llm_assets.corpus.recogniser.weights import load


@pytest.fixture
def reader() -> recurrent.Reader:
    return ensemble.shipped().reader


def _arrays() -> dict[str, np.ndarray]:
    arrays = load("networks", ensemble.SHA256)
    return {name.removeprefix(ensemble.READER): array for name, array in arrays.items() if name.startswith(ensemble.READER)}


def _rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2000, (count, PLACES))


def test_a_reader_sees_all_places_and_no_other_candidate(reader: recurrent.Reader) -> None:
    rows, form = _rows(6), np.array([0, 1, 2, 3, 0, 1])
    odds = recurrent.forward(reader, rows, form)
    changed = rows.copy()
    changed[1, [0, -1]] = 5
    again = recurrent.forward(reader, changed, form)
    assert (odds != again).tolist() == [False, True, False, False, False, False]


def test_nothing_beyond_the_text_is_read() -> None:
    rows = _rows(1)
    rows[0, :6] = rows[0, 20:] = 0
    arrays = _arrays()
    other = arrays["embedding"].copy()
    other[0] = 99
    form = np.array([1])
    odds, changed = (recurrent.forward(recurrent.unpack(some), rows, form) for some in (arrays, arrays | {"embedding": other}))
    assert odds.tolist() == changed.tolist()


def test_a_shut_gate_keeps_the_state(reader: recurrent.Reader) -> None:
    sigmoid, _ = recurrent._curves()
    assert sigmoid[0] == 0
    for layer in reader.layers:
        most = recurrent.STEPS * np.abs(layer.gates).sum(axis=1) * layer.gates_scale[:, 0]
        assert recurrent.SHUT + most.max() < 0


def test_the_hidden_layer_sees_both_ends_of_a_candidate() -> None:
    places = [tuple(int(place[0]) for place in recurrent.looked_at(np.array([form]))) for form in range(4)]
    assert places == [(9, 10, 11, 12), (9, 10, 12, 13), (9, 10, 12, 13), (9, 10, 13, 14)]


def test_sums_stay_where_float32_is_exact(reader: recurrent.Reader) -> None:
    first = float(np.abs(_arrays()["embedding"].astype(int)).max())
    for layer, largest in zip(reader.layers, (first, recurrent.STEPS), strict=True):
        assert (largest * np.abs(layer.inputs).sum(axis=1)).max() < 1 << 24
        assert all((recurrent.STEPS * np.abs(weights).sum(axis=1)).max() < 1 << 24 for weights in (layer.gates, layer.fresh))
        assert all(np.array_equal(np.rint(weights), weights) for weights in (layer.inputs, layer.gates, layer.fresh))
    inputs = recurrent.STEPS / recurrent.FINER * np.abs(reader.hidden).sum(axis=0)
    assert (inputs + np.abs(reader.hidden_bias).max()).max() < 1 << 24
