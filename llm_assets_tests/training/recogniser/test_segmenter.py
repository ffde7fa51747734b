from __future__ import annotations

from llm_assets.training.recogniser.segmenter import Segmenter, _spans


def test_persons_are_seen_where_they_stand() -> None:
    persons = Segmenter().persons(["房间很干净,服务员张建国很热情。", "", "毛泽东和江泽民", "高兴"])
    assert persons == [[(9, 12)], [], [(0, 3), (4, 7)], []]


def test_tags_make_spans() -> None:
    assert _spans([48, 49, 49, 48, 14, 49, 16, 17]) == [(0, 3), (3, 4), (6, 8)]
