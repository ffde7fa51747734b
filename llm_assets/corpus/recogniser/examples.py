"""Examples that the recogniser of names learns from: texts with marked names, and texts in which invented names are planted."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from llm_assets.corpus.recogniser.surnames import COMPOUND, SINGLE

CLAUSE = re.compile(r"[,。!?;]")
PHRASE = re.compile(r"[,。!?;:、]")
LONGEST = 12  # characters of a clause before a name, and after it, that is planted elsewhere
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
Kind = Literal["text", "name", "unknown"]
Piece = tuple[str, Kind]
Context = tuple[str, str]  # what stands before a name and after it


class Example(NamedTuple):
    """A text and where its names stand; what is ``unknown`` may be a name too and teaches nothing."""

    text: str
    names: tuple[tuple[int, int], ...] = ()
    unknown: tuple[tuple[int, int], ...] = ()


class Inventor:
    """Makes names up from known ones: their surnames, the frequent ones more often, and their given names."""

    def __init__(self, known: Iterable[str], rng: random.Random) -> None:
        self._rng = rng
        self._known = sorted(set(known))
        counts = Counter(_surname(name) for name in self._known)
        self._surnames = sorted(SINGLE | COMPOUND)
        self._weights = [(counts[one] + 0.5) ** 0.7 for one in self._surnames]  # flatter than life, so that rare ones are learnt too
        self._given: dict[int, list[str]] = {1: [], 2: []}  # as often as names have them
        for name in self._known:
            given = name.removeprefix(_surname(name))
            self._given[len(given)].append(given)
        self._characters = sorted(set("".join(self._given[1] + self._given[2])))

    def name(self) -> Piece:
        """A whole name, or a surname with two characters that need not belong together, a given name that somebody has, or one character."""
        rng, kind = self._rng, self._rng.random()
        surname = rng.choices(self._surnames, self._weights)[0]
        if kind < 0.25:
            return surname + rng.choice(self._given[2])[0] + rng.choice(self._given[2])[1], "name"
        if kind < 0.45:
            return surname + rng.choice(self._given[2]), "name"
        if kind < 0.70:
            return rng.choice(self._known), "name"
        return surname + rng.choice(self._given[1] if kind < 0.92 else self._characters), "name"


def joined(pieces: Iterable[Piece]) -> Example:
    """The pieces as one text."""
    text = ""
    places: dict[Kind, list[tuple[int, int]]] = {"name": [], "unknown": [], "text": []}
    for piece, kind in pieces:
        places[kind].append((len(text), len(text) + len(piece)))
        text += piece
    return Example(text, tuple(places["name"]), tuple(places["unknown"]))


def contexts(examples: Iterable[Example]) -> list[Context]:
    """The clauses of the examples that hold one name and are short, without it."""
    found: list[Context] = []
    for example in examples:
        for start, end in example.names:
            first = max((match.end() for match in PHRASE.finditer(example.text, 0, start)), default=0)
            mark = PHRASE.search(example.text, end)
            last = mark.end() if mark else len(example.text)
            alone = not any(one < last and first < other for one, other in example.names + example.unknown if one != start)
            if alone and start - first <= LONGEST and last - end <= LONGEST:
                found.append((example.text[first:start], example.text[end:last]))
    return [context for context in found if context not in (("", "、"), ("", ","))]  # members of lists: thousands alike


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


def introduced(example: Example, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a name before one of its clauses, bare or among words that introduce people."""
    before, after = ((rng.choice(some) if rng.random() < 0.25 else "") for some in (BEFORE, AFTER))
    end = rng.choice(("", "", ",", ",", "。", " ", ":"))
    return _planted(example, _boundary(example, rng), [(before, "text"), inventor.name(), (after + end, "text")])


def quoted(example: Example, found: Sequence[Context], inventor: Inventor, rng: random.Random) -> Example:
    """The text with a clause of another text before one of its clauses, a name in it; half of such are cut short beside the name."""
    before, after = rng.choice(found)
    if rng.random() < 0.3:
        after = rng.choice(found)[1]
    if rng.random() < 0.5:
        before = before[len(before) - min(len(before), rng.choice((0, 0, 1, 2, 3, 4))) :]
    if rng.random() < 0.5:
        after = after[: rng.choice((0, 0, 1, 2, 3, 4))] + rng.choice(("", ",", ",", "。", " ", "!"))
    return _planted(example, _boundary(example, rng), [(before, "text"), inventor.name(), (after, "text")])


def inserted(example: Example, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a name anywhere: what stands beside a name says little of it in everyday text."""
    return _planted(example, rng.randrange(len(example.text) + 1), [inventor.name()])


def peopled(example: Example, inventor: Inventor, rng: random.Random) -> Example:
    """The text with a name in the place of one or two of its words for people, where it holds no names."""
    places = [] if example.names or example.unknown else list(PEOPLE.finditer(example.text))
    chosen = sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 2)))), key=lambda match: match.start())
    if not chosen:
        return example
    pieces: list[Piece] = []
    for match, end in zip(chosen, [0, *(match.end() for match in chosen)], strict=False):
        pieces += [(example.text[end : match.start()], "text"), inventor.name()]
    return joined([*pieces, (example.text[chosen[-1].end() :], "text")])


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
    return name[:2] if name[:2] in COMPOUND and len(name) > 2 else name[:1]


def _boundary(example: Example, rng: random.Random) -> int:
    return rng.choice([0, *(match.end() for match in CLAUSE.finditer(example.text))])


def _planted(example: Example, cut: int, planted: Sequence[Piece]) -> Example:
    """The example with pieces at a place; what they cut in two is unknown from then on."""
    pieces: list[Piece] = []
    position, waiting = 0, list(planted)
    for piece, kind in _pieces(example):
        if waiting and position <= cut <= position + len(piece):
            inside = 0 < cut - position < len(piece)
            part: Kind = "unknown" if inside and kind == "name" else kind
            pieces += [(piece[: cut - position], part), *waiting, (piece[cut - position :], part)]
            waiting = []
        else:
            pieces.append((piece, kind))
        position += len(piece)
    return joined((piece, kind) for piece, kind in pieces if piece)


def _pieces(example: Example) -> Iterator[Piece]:
    end = 0
    marked: list[tuple[tuple[int, int], Kind]] = [(place, "name") for place in example.names]
    marked += [(place, "unknown") for place in example.unknown]
    for (start, stop), kind in sorted(marked):
        yield example.text[end:start], "text"
        yield example.text[start:stop], kind
        end = stop
    yield example.text[end:], "text"
