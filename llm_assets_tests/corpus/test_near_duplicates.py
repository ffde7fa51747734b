from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.corpus.codepoints import letters
from llm_assets.corpus.near_duplicates import NearDuplicates, signatures
from llm_assets.corpus.near_duplicates import clusters as clusters_of

CONFIG = NearDuplicates()
TEXT = "这家酒店的位置很好离地铁站只有五分钟早餐种类也多服务员态度热情房间干净整洁下次来上海还会选择住在这里"


def clusters(texts: list[str], config: NearDuplicates, size: int = 50) -> np.ndarray:
    with tempfile.TemporaryDirectory() as scratch:
        found, _ = clusters_of((texts[start : start + size] for start in range(0, len(texts), size)), config, Path(scratch))
        assert not list(Path(scratch).iterdir())  # signatures are gone
    return found


def test_equal_and_nearly_equal_texts_meet_and_others_do_not() -> None:
    keys = [TEXT, "完全不同的一段话讲的是一本关于历史的书内容很精彩推荐大家都去读一读", TEXT.replace("五", "六"), TEXT, TEXT[:12]]
    assert clusters(keys, CONFIG).tolist() == [0, 1, 0, 0, 4]


def test_similarity_is_a_threshold() -> None:
    half = TEXT[: len(TEXT) * 3 // 5] + "但是停车场又小又贵晚上外面很吵根本睡不着空调也不太凉快"
    assert clusters([TEXT, half], CONFIG).tolist() == [0, 1]
    assert clusters([TEXT, half], NearDuplicates(similarity=0.2, bands=64)).tolist() == [0, 0]


def test_chains_hang_together_in_any_order_and_large_buckets() -> None:
    rng = random.Random(1)
    variants = [TEXT + f"{number:02d}" for number in range(40)]
    others = ["".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳", k=60)) for _ in range(200)]
    keys = variants + others
    rng.shuffle(keys)
    found = clusters(keys, CONFIG)
    assert len({found[keys.index(key)] for key in variants}) == 1
    assert len(np.unique(found)) == 1 + len(others)


@given(st.lists(st.text(alphabet="好坏酒店书", max_size=8), max_size=30))
def test_a_cluster_is_named_by_its_first_member(keys: list[str]) -> None:
    found = clusters(keys, CONFIG)
    assert len(found) == len(keys)
    assert all(found[name] == name <= index for index, name in enumerate(found))
    assert all(found[index] == found[keys.index(key)] for index, key in enumerate(keys))


@given(st.lists(st.text(alphabet="好坏酒店书。 ", max_size=12), max_size=20), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_batches_and_order_change_no_cluster(texts: list[str], size: int) -> None:
    found = clusters(texts, CONFIG)
    assert found.tolist() == clusters(texts, CONFIG, size).tolist()
    backwards = clusters(texts[::-1], CONFIG)[::-1]
    together = [{j for j in range(len(texts)) if found[i] == found[j]} for i in range(len(texts))]
    assert together == [{j for j in range(len(texts)) if backwards[i] == backwards[j]} for i in range(len(texts))]


def test_signatures_estimate_the_jaccard_similarity() -> None:
    rng = random.Random(3)
    errors = []
    for kept in range(4, 40, 2):
        other = TEXT[:kept] + "".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏", k=40 - kept))
        one, two = ({text[i : i + 3] for i in range(len(text) - 2)} for text in (TEXT, other))
        marks = signatures(letters([TEXT, other]))
        errors.append(float((marks[0] == marks[1]).mean()) - len(one & two) / len(one | two))
    assert abs(np.mean(errors)) < 0.03 and np.std(errors) < 0.06  # the standard error of 128 hashes is at most 0.044


def test_the_threshold_is_met_exactly() -> None:
    """Pairs on both sides of 0.7 by less than the estimate's standard error of 0.04."""
    rng = random.Random(7)
    above, below = [], []
    while len(above) < 60 or len(below) < 60:
        one = "".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜", k=rng.randint(30, 90)))
        other = list(one)
        for _ in range(rng.randint(1, 6)):
            other[rng.randrange(len(other))] = rng.choice("甲乙丙丁戊己庚辛壬癸")
        a, b = ({text[i : i + 3] for i in range(len(text) - 2)} for text in (one, "".join(other)))
        similarity = len(a & b) / len(a | b)
        if abs(similarity - 0.7) < 0.04:
            (above if similarity >= 0.7 else below).append([one, "".join(other)])
    assert all(clusters(pair, CONFIG).tolist() == [0, 0] for pair in above[:60])
    assert all(clusters(pair, CONFIG).tolist() == [0, 1] for pair in below[:60])
