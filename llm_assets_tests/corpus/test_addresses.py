from __future__ import annotations

import re
import time

import pytest

from llm_assets.corpus.addresses import EXPRESSION, SUSPICIOUS

ADDRESSES = {
    "我家住在北京市海淀区中关村南大街5号,欢迎": "北京市海淀区中关村南大街5号",
    "地址:上海市浦东新区张江镇碧波路690号3号楼501室": "上海市浦东新区张江镇碧波路690号3号楼501室",
    "人民东路18弄5号602室": "人民东路18弄5号602室",
    "寄到杭州市西湖区文三路478号华星时代广场A座1203室,谢谢": "杭州市西湖区文三路478号华星时代广场A座1203室",
    "就在成都市新市街12号": "成都市新市街12号",
    "他住阳光小区3栋2单元501": "阳光小区3栋2单元501",
    "河北省保定市徐水县大午村3组": "河北省保定市徐水县大午村3组",
    "我在时代大厦A座1203上班": "时代大厦A座1203",
    "新疆解放路二十号": "新疆解放路二十号",
    "离东三环北路甲19号不远": "东三环北路甲19号",
    "I live at 123 Main Street, Springfield, IL 62701 now": "123 Main Street, Springfield, IL 62701",
    "at 221B Baker Street. Call": "221B Baker Street",
    "1600 North 5th Ave Apt 12": "1600 North 5th Ave Apt 12",
}
NONE = [
    "坐12路车到五一路口,再换3号线",
    "走路10分钟,房间里3号床,2008年8月8号",
    "铁路12号 网路1号 电路3号",
    "这条街二楼的饭馆",
    "空调得弄一弄",
    "我在海淀区上班,常去中山路",
    "2008年8月8号的北京市",
    "We drove 500 miles. Wall Street was closed",
]


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items())
def test_an_address_is_found_whole(text: str, address: str) -> None:
    assert [match.group() for match in EXPRESSION.finditer(text)] == [address]
    assert re.search(SUSPICIOUS, text)


@pytest.mark.parametrize("text", NONE)
def test_a_road_a_region_or_a_number_alone_is_none(text: str) -> None:
    assert not EXPRESSION.search(text)


def test_rows_of_regions_take_no_time() -> None:
    started = time.perf_counter()
    for character in "县区市路街村住":
        EXPRESSION.search(character * 2000 + "路5")
    assert time.perf_counter() - started < 5
