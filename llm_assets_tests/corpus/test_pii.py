from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.documents import EVIDENCE_LENGTH
from llm_assets.corpus.pii import FEW, MASKS, Span, excerpt, internet_protocol_6, luhn, mask, mask_all, replace, resident_identity

IDENTITY = "11010519491231002X"  # the example of GB 11643-1999
CARD = "6222021234567890128"

PERSONAL = {
    "联系 li.wei+a@example.com.cn 谢谢": "联系 [EMAIL] 谢谢",
    "电话13800138000。": "电话[PHONE]。",
    "电话138-0013-8000": "电话[PHONE]",
    "+86 13800138000": "[PHONE]",
    "打 +1 (415) 555 2671 找我": "打 [PHONE] 找我",
    "打 0044 20 7946 0958": "打 [PHONE]",
    "前台 0532-88881234": "前台 [PHONE]",
    f"身份证{IDENTITY}": "身份证[ID]",
    "卡号 4111 1111 1111 1111 过期": "卡号 [CARD] 过期",
    "来自 192.168.10.254 的访问": "来自 [IP] 的访问",
    "前台(0755)57396508": "前台[PHONE]",
    "(010-65610400)": "([PHONE])",
    "来自2001:db8::ff00:42:8329的访问": "来自[IP]的访问",
    "2001:0DB8:0000:0000:0000:FF00:0042:8329": "[IP]",
    "fe80::1/64": "[IP]/64",
    "::ffff:192.0.2.128": "[IP]",
    "联系人:张建国,谢谢": "联系人:[NAME],谢谢",
    "我叫欧阳建华。": "我叫[NAME]。",
    "记者李明说": "记者[NAME]说",
    "I met Mr. John B. Smith there": "I met Mr. [NAME] there",
    "my name is Anna Lee.": "my name is [NAME].",
    "我住在海淀区中关村大街27号": "我住在[ADDRESS]",
    "at 12 Oak Street": "at [ADDRESS]",
}
HARMLESS = [
    "用了3天,15.4寸屏,2G内存,价格4999元",
    "订单号 20081234567890123",
    "110105194912310021",  # wrong check character
    "4111 1111 1111 1112",  # fails Luhn
    "版本 1.2.3.4.5",
    "256.1.1.1",
    "微博@小明",
    "2008年8月8日 12:30",
    "0000000000000000",
    "股票002345涨了",
    "编号 0012345",
    "气温+25到+31度",
    "12:30:45开始",
    "std::string a::b 00:1A:2B:3C:4D:5E",
    "王先生和李老师",
    "高兴地说方便面和高跟鞋",
    "前台[PHONE]和[NAME]在[ADDRESS]",
    "Mr. [NAME] of [ADDRESS]",
]
# fmt: off
FRAGMENTS = [
    "张建国", "李明", "王", "小红", "欧阳", "记者", "经理", "、", ",", "和", "说", "住在",
    "海淀区", "中关村大街", "27号", "3栋", "Mr. John", "Main Street", "12 ", " ",
    "13800138000", "a@b.cn", "::1", "2001:db8", ":", "[", "]", *MASKS.values(),
]
# fmt: on


@pytest.mark.parametrize(("text", "expected"), PERSONAL.items())
def test_personal_data_is_masked(text: str, expected: str) -> None:
    masked, spans = mask(text)
    assert masked == expected
    assert len(spans) == 1
    assert mask_all(["一切正常", text]) == (["一切正常", expected], {1: spans})


@pytest.mark.parametrize("text", HARMLESS)
def test_other_numbers_stay(text: str) -> None:
    assert mask(text) == (text, [])


def test_checksums() -> None:
    assert luhn("4111-1111-1111-1111") and not luhn("4111-1111-1111-1121")
    assert resident_identity(IDENTITY) and resident_identity(IDENTITY.lower()) and not resident_identity("110105194912310021")


def test_an_ipv6_address_has_two_groups_and_a_digit() -> None:
    assert internet_protocol_6("fe80::1") and internet_protocol_6("2001:db8::")
    assert not any(map(internet_protocol_6, ("::", "::1", "ab::cd", "12:30:45", "1::2::3")))


@given(st.text(alphabet="0123456789+-. @aX宾馆():fF", max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_masking_twice_changes_nothing_more_and_spans_say_what_was_replaced(text: str) -> None:
    masked, spans = mask(text)
    assert mask(masked) == (masked, [])
    assert replace(text, spans) == masked
    assert all(one.end <= other.start for one, other in pairwise(spans))
    tokens = [found for token in MASKS.values() for found in _places(text, token)]
    assert not any(span.start < end and start < span.end for span in spans for start, end in tokens)


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join), max_size=5))
def test_neighbours_change_nothing(texts: list[str]) -> None:
    masked, spans = mask_all(texts)
    assert masked == [mask(text)[0] for text in texts]
    assert spans == {index: found for index, text in enumerate(texts) if (found := mask(text)[1])}


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=20, max_size=60).map("".join))
def test_nothing_is_found_in_what_evidence_shows(text: str) -> None:
    shown = excerpt(text)
    assert len(shown) <= EVIDENCE_LENGTH
    assert mask(shown)[1] == []


def test_a_name_that_shows_only_beside_a_mask_has_its_place_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    finds = [{0: [(2, 4)]}, {0: [(0, 2), (8, 10)]}, {}]
    monkeypatch.setattr("llm_assets.corpus.pii.find_names", lambda texts: finds.pop(0))
    masked, spans = mask_all(["甲甲乙乙丙丙"])
    assert spans == {0: [Span("name", 0, 2), Span("name", 2, 4), Span("name", 4, 6)]}
    assert masked == ["[NAME][NAME][NAME]"]


def _places(text: str, token: str) -> list[tuple[int, int]]:
    return [(start, start + len(token)) for start in range(len(text)) if text.startswith(token, start)]


def test_few_texts_and_many_are_masked_alike() -> None:
    """Few are searched by Python, many by Arrow: to both a digit is an ASCII one, and a Chinese character ends an English word."""
    texts = ["住在解放路５号", "王Mr. John Smith来了", "电话１３８００１３８０００", "他住在人民路5号", "写给a@b.com", "Mr Smith 走了", "没有什么"]
    together = mask_all([*texts, "没有什么。" * FEW])[0][: len(texts)]
    assert [mask(text)[0] for text in texts] == together
    assert together[3] != texts[3] and together[4] == "写给[EMAIL]"
