"""Every measure worked by hand on a text or two."""

from __future__ import annotations

import math

import pytest

from llm_assets.evaluation.generation import CANDIDATES, Words, bm25, candidates, copied, lead_sentence, ranking, titles, translation


def test_chrf_by_hand() -> None:
    """``abc`` for ``abd``: of 1-grams 2 of 3 match, of 2-grams 1 of 2, of 3-grams none of 1; precision and recall are the same.

    chrF is F with recall weighed 2 (beta), and F of equal precision and recall is that value: the mean of 2/3, 1/2 and 0.
    """
    assert translation(["abc"], ["abd"])["chrf"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3, abs=1e-3)
    assert translation(["保存文件"], ["保存文件"]) == {"chrf": 100.0, "bleu": 100.0}


def test_bleu_by_hand() -> None:
    """Six of seven characters are the reference's; matching n-grams 6/7, 5/6, 4/5, 3/4, lengths equal: the geometric mean."""
    found = translation(["打开一个文件夹"], ["打开一个文件袋"])["bleu"]
    assert found == pytest.approx(100 * math.exp(sum(math.log(x) for x in (6 / 7, 5 / 6, 4 / 5, 3 / 4)) / 4), abs=1e-3)
    short = translation(["the cat sat on"], ["the cat sat on the mat"])["bleu"]  # every n-gram is right, two words are missing
    assert short == pytest.approx(100 * math.exp(1 - 6 / 4), abs=1e-3)


def test_rouge_by_hand() -> None:
    """Reference of 4 words, answer of 3, all among them; one of 2 pairs matches; the longest common run in order has 2 words."""
    found = titles(["Profit jumps AOL"], ["AOL profit jumps again"])
    assert found["rouge1"] == pytest.approx(2 * 1 * 0.75 / 1.75, abs=1e-4)
    assert found["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3), abs=1e-4)
    assert found["rougel"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4), abs=1e-4)
    assert titles(["利润上升"], ["利润上升"])["rouge2"] == 1  # Han characters are words
    assert Words().tokenize("The 3rd 打开_it") == ["the", "3rd", "打", "开", "it"]


def test_baselines_copy_and_take_the_first_sentence() -> None:
    assert copied("Open a file") == "Open a file"
    assert lead_sentence("Profits rose 7.5% today. They fell.") == "Profits rose 7.5% today."
    assert lead_sentence("利润上升。又下降。") == "利润上升。"


def test_ranks_by_hand() -> None:
    """First; second of three; first by half with another; all four alike."""
    found = ranking([[3, 1, 2], [2, 3, 1], [2, 2, 0], [0, 0, 0, 0]])
    assert found["first_of_10"] == pytest.approx((1 + 0 + 1 / 2 + 1 / 4) / 4, abs=1e-4)
    assert found["reciprocal_rank"] == pytest.approx((1 + 1 / 2 + (1 + 1 / 2) / 2 + (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4) / 4, abs=1e-4)
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 1 / 4) / 4, abs=1e-4)


def test_candidates_are_different_texts_and_do_not_depend_on_the_order() -> None:
    replies = ["好的", "好的", *(f"回复{number}" for number in range(20))]
    names = [f"doc{number}" for number in range(len(replies))]
    chosen = candidates(replies, names, len(names))
    for own, places in enumerate(chosen):
        assert places[0] == own and len(places) == CANDIDATES == len({replies[place] for place in places})
    assert candidates(replies, names, 3) == chosen[:3]
    turned = candidates(replies[::-1], names[::-1], len(names))
    assert [{replies[::-1][place] for place in places} for places in turned][::-1][2:] == [{replies[place] for place in places} for places in chosen][
        2:
    ]


def test_bm25_finds_the_reply_with_the_rarest_shared_words() -> None:
    replies = ["韵达发货", "送茶刀一把", "好的"]
    found = bm25(["茶刀有送吗", "发什么货", "zzz"], replies, [[1, 0, 2], [0, 1, 2], [2, 0, 1]])
    assert found[0][0] > max(found[0][1:]) and found[1][0] > max(found[1][1:]) and found[2] == [0, 0, 0]
    assert ranking(found)["first_of_10"] == pytest.approx((1 + 1 + 1 / 3) / 3, abs=1e-4)
