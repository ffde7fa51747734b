from __future__ import annotations

import numpy as np

from llm_assets.corpus.recogniser import ensemble, networks
from llm_assets.corpus.recogniser.candidates import candidates, padded

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


def test_sums_stay_where_float32_is_exact() -> None:
    for network in ensemble.shipped().networks:
        inputs = sum(np.abs(part).max() for part in (network.embedding, network.words, network.places))
        for taps, bias in zip(network.taps, network.taps_bias, strict=True):
            by_filter = np.abs(taps).reshape(len(taps), 3, -1).sum(axis=(0, 1))
            assert (inputs * by_filter + np.abs(bias)).max() < 1 << 24
        assert (networks.LEVELS * np.abs(network.hidden).sum(axis=0) + np.abs(network.hidden_bias).max()).max() < 1 << 24
        for field in ("embedding", "words", "places", "taps", "hidden", "output"):
            assert np.array_equal(np.rint(getattr(network, field)), getattr(network, field))
