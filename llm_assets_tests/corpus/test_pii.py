from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.pii import luhn, mask, mask_all, resident_identity

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
]


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


@given(st.text(alphabet="0123456789+-. @aX宾馆()", max_size=60))
def test_masking_twice_changes_nothing_more_and_the_batch_agrees(text: str) -> None:
    masked, _ = mask(text)
    assert mask_all([text])[0] == [masked]
    assert "@" not in masked or mask(masked)[0] == masked
