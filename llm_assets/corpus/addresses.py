"""Postal addresses by their grammar: Chinese from the region down to the room, English from the number up to the state.

A region alone, or a road without a number, is no address: many people share it.
"""

from __future__ import annotations

import re

HAN = r"[\u4e00-\u9fff]"
OUTSIDE = "的了是还有我你他她它在到于去从往离距址寄这那很也就吗呢吧啊为及"  # in hardly any place name: an address starts after them
INSIDE = rf"(?:(?![{OUTSIDE}住]){HAN}|住(?=宅))"
PROVINCES = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|"
    "甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
REGION = r"(?:自治区|特别行政区|自治州|自治县|开发区|街道|省|市|州|盟|地区|新区|(?<!小)区|县|旗|镇|乡|村)"
ROAD = r"(?:大道|大街|胡同|公路|路|街|巷|[东西南北]里)"
NO_ROAD = "铁网线电思"  # before 路: words that are no street
ESTATE = r"(?:小区|花园|公寓|家园|新村|山庄|大厦|广场|大院|苑|坊)"
NUMBER = r"(?:[A-Za-z](?=[座栋幢区])|[甲乙丙A-Za-z]?(?:\d{1,5}(?:[-—~之]\d{1,5})?|[一二三四五六七八九十百]{1,5})[A-Za-z]?)"
HOUSE = r"(?:号院|号楼|号(?![线机店])|弄|巷|栋|幢|座)"
WITHIN = r"(?:号院|号楼|号|弄|支弄|栋|幢|座|单元|层|楼|室|房|户|门|院)"
COUNTRYSIDE = r"(?:组|社|队|号|屯)"
INNER = rf"(?: ?(?:{INSIDE}{{2,8}}?{ESTATE})? ?{NUMBER}{WITHIN})*(?:[- ]?\d{{3,4}}(?!\d|[.年元块个月]))?"
SUFFIX = r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Way|Parkway|Pkwy|Highway|Hwy)"
CHINESE = (
    rf"(?:(?:{PROVINCES})|(?<!{HAN})|(?<=[{OUTSIDE}住们]))(?>(?:(?:(?:{PROVINCES})?{INSIDE}{{0,8}}?{REGION}|(?:{PROVINCES})) ?){{0,6}})"
    rf"(?:{INSIDE}{{0,8}}?(?<![{NO_ROAD}]){ROAD} ?{NUMBER}{HOUSE}|{INSIDE}{{2,10}}?{ESTATE} ?{NUMBER}{HOUSE}|(?<=村) ?{NUMBER}{COUNTRYSIDE}){INNER}"
    rf"|{INSIDE}{{2}}[东西南北中]?(?<![{NO_ROAD}]){ROAD} ?{NUMBER}{HOUSE}{INNER}"  # whatever stands before it
)
STREET = rf"\d[A-Za-z]? (?:(?:North|South|East|West|[NSEW])\.? )?(?:(?:[A-Z][A-Za-z'.-]*|\d{{1,3}}(?:st|nd|rd|th)) ){{1,3}}{SUFFIX}\b"
ENGLISH = (
    rf"(?<![\w.,/])\d{{0,4}}{STREET}"
    r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|#)\.? ?[A-Za-z0-9-]{1,5}\b)?"
    r"(?:, [A-Z][A-Za-z]+(?: [A-Z][a-z]+){0,2}(?:, [A-Z]{2}\b)?(?: \d{5}(?:-\d{4})?\b)?)?"
)
EXPRESSION = re.compile(rf"{CHINESE}|{ENGLISH}")
# RE2 too; a text without a match holds no address
SUSPICIOUS = rf"(?:{ROAD}|{ESTATE}|村) ?[甲乙丙A-Za-z\d一二三四五六七八九十百]|{STREET}"
