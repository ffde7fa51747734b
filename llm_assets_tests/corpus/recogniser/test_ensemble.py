from __future__ import annotations

import numpy as np

from llm_assets.corpus.recogniser import ensemble, networks
from llm_assets.corpus.recogniser.candidates import Candidates, candidates, padded

TEXTS = ["联系人:张建国,电话不变", "我叫欧阳建华。高兴地买了高跟鞋", "李明"]


def test_scores_do_not_depend_on_the_batch() -> None:
    text = padded(TEXTS * 200)
    found = candidates(text.values)
    weights = ensemble.shipped()
    together = ensemble.log_odds(weights, text.values, found)
    assert len(together) > 2 * ensemble.BATCH
    alone = [ensemble.log_odds(weights, text.values, Candidates(*(column[index : index + 1] for column in found))) for index in range(40)]
    assert np.concatenate(alone).tolist() == together[:40].tolist()


def test_the_others_are_asked_where_the_first_are_unsure() -> None:
    text = padded([*TEXTS, "马德里和高雅,张建国说好"])
    found = candidates(text.values)
    weights = ensemble.shipped()
    seen = networks.window(text.values, found, weights.filled)
    glanced, read = ensemble.glanced(weights, seen), ensemble.read(weights, seen)
    convolved = ensemble.convolved(weights, seen, glanced)
    odds = ensemble.log_odds(weights, text.values, found)
    hopeless = glanced <= ensemble.HOPELESS
    unsure = ~hopeless & (convolved > ensemble.UNSURE[0]) & (convolved < ensemble.UNSURE[1])
    assert hopeless.any() and unsure.any() and (~hopeless & ~unsure).any()
    assert odds.tolist() == np.where(hopeless, glanced, np.where(unsure, (convolved + read) / 2, convolved)).tolist()


def test_no_candidates_have_no_scores() -> None:
    text = padded(["很好"])
    assert ensemble.log_odds(ensemble.shipped(), text.values, candidates(text.values)).shape == (0,)
