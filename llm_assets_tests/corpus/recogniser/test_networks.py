from __future__ import annotations

import numpy as np

from llm_assets.corpus.recogniser import ensemble, networks
from llm_assets.corpus.recogniser.candidates import candidates, padded
from llm_assets.corpus.recogniser.weights import load

TEXTS = ["联系人:张建国,电话不变", "我叫欧阳建华。高兴地买了高跟鞋", "李明"]


def test_a_window_holds_what_stands_around_a_candidate() -> None:
    text = padded(TEXTS)
    found = candidates(text.values)
    seen = networks.window(text.values, found, ensemble.shipped().filled)
    place = next(index for index, (start, _, end) in enumerate(zip(*found, strict=True)) if (start - text.starts[0], end - start) == (4, 3))
    shown, around = ("".join(map(chr, column[place])).replace("\0", "_") for column in (seen.points, seen.around))
    assert shown == "______联系人:张建国," + ":张建国,电话不变_____"[:14]
    assert around == "______联系人:张建国,电话不变" + "_" * 6
    assert seen.form[place] == 1
    assert {int(form) for form in seen.form} == {0, 1, 2, 3}


def trained() -> list[networks.Trained]:
    arrays = load("networks", ensemble.SHA256)
    return [networks.Trained(*one) for one in zip(*(arrays[field] for field in networks.Trained._fields), strict=True)]


def test_a_sum_of_terms_is_the_convolution() -> None:
    text, weights = padded(TEXTS), ensemble.shipped()
    seen = networks.window(text.values, candidates(text.values), weights.filled)
    rows = weights.rows[seen.points]
    found = networks.terms(rows, seen)
    for one, network in zip(trained(), weights.networks, strict=True):
        inputs = one.embedding.astype(int)[rows] + one.words.astype(int)[seen.words] + one.places.astype(int)[seen.form]
        halves = []
        for half, (taps, bias) in enumerate(zip(one.taps.astype(int), one.taps_bias.astype(int), strict=True)):
            part = inputs[:, half * networks.SIDE : (half + 1) * networks.SIDE]
            first, second, third = np.split(part @ taps, networks.TAPS, axis=2)
            halves.append(first[:, :-2] + second[:, 1:-1] + third[:, 2:] + bias)
        assert np.array_equal(network.terms[found].sum(axis=0), np.concatenate(halves, axis=1))


def test_sums_stay_where_float32_is_exact() -> None:
    for network in trained():
        inputs = sum(np.abs(part.astype(int)).max() for part in (network.embedding, network.words, network.places))
        for taps, bias in zip(network.taps.astype(int), network.taps_bias.astype(int), strict=True):
            by_filter = np.abs(taps).reshape(len(taps), networks.TAPS, -1).sum(axis=(0, 1))
            assert (inputs * by_filter + np.abs(bias)).max() < 1 << 24
        hidden, bias = network.hidden.astype(int), network.hidden_bias.astype(int)
        assert (networks.LEVELS * np.abs(hidden).sum(axis=0) + np.abs(bias).max()).max() < 1 << 24
        for field in ("embedding", "words", "places", "taps", "hidden", "output"):
            assert np.issubdtype(getattr(network, field).dtype, np.integer)
