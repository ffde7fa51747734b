from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.recogniser import names
from llm_assets.corpus.recogniser.candidates import candidates, padded

TEXTS = st.lists(st.text(alphabet="张李欧阳建国明小王高兴说、,a1[]\0😀", max_size=20), max_size=6)


def test_names_are_found_where_they_stand() -> None:
    texts = ["联系人:张建国,电话不变", "房间很干净", "", "我叫欧阳建华。"]
    assert names.find_names(texts) == {0: [(4, 7)], 3: [(2, 6)]}


def test_names_are_found_where_little_around_them_tells_of_people() -> None:
    texts = ["屏幕还行,备用的给了陈思雨,续航一般", "徐志远房间很干净", "发票开的赵敏,没问题"]
    assert names.find_names(texts) == {0: [(10, 13)], 1: [(0, 3)], 2: [(4, 6)]}


def test_names_are_found_that_look_like_words_or_come_from_abroad() -> None:
    texts = ["与马骏合住,房间有点小", "今天陆羽过生日,酒店送了蛋糕", "收银戈尔登算错了钱"]
    assert names.find_names(texts) == {0: [(1, 3)], 1: [(2, 4)], 2: [(2, 5)]}


def test_words_that_only_their_meaning_tells_from_names_are_none() -> None:
    assert names.find_names(["海口的金桔行情一直看好", "伊利的目标是做第一", "国富民盈乐小康"]) == {}


def test_words_that_begin_like_a_name_are_none() -> None:
    assert names.find_names(["高兴地买了高跟鞋和方便面", "沈阳、武汉、安阳三地", "应该常常安装"]) == {}


@pytest.mark.xfail(reason="the regression alone knew better; the dictionary that the networks ask lists no 金灿灿", strict=True)
def test_a_word_that_looks_like_a_name_through_and_through() -> None:
    assert names.find_names(["金灿灿的黄豆"]) == {}


@given(TEXTS)
def test_neighbours_change_nothing_and_names_never_overlap(texts: list[str]) -> None:
    found = names.find_names(texts)
    assert found == {index: alone[0] for index, text in enumerate(texts) if (alone := names.find_names([text]))}
    for index, places in found.items():
        assert all(one[1] <= other[0] for one, other in pairwise(places))
        assert all(2 <= end - start <= 4 and texts[index][start:end].isalpha() for start, end in places)


def test_every_feature_has_its_bin() -> None:
    text = padded(["欧阳明国的王先生"])
    assert all(column.max() < 1 << names.BITS for column in names.features(text.values, candidates(text.values)))
