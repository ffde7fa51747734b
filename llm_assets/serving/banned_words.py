"""Words that an answer must not hold, as a grammar of every text without them.

llama.cpp holds each token against a grammar before it is taken, by the characters that it writes: whatever tokens spell a word, with
a space before it, inside a longer one or byte by byte, the token that would complete it is never chosen, so nothing that was
streamed has to be taken back. The states of the grammar are those of Aho and Corasick's automaton (1975), the longest end of the
text so far that begins a word: one rule a state, and no rule leads to a word's end.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

LAST = 0x10FFFF  # of Unicode
CONTINUING = bytes(range(0x80, 0xC0))  # bytes that go on with a character
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that a byte-level vocabulary writes as themselves
LETTERS = {chr(byte): byte for byte in PRINTABLE} | {chr(256 + place): byte for place, byte in enumerate(b for b in range(256) if b not in PRINTABLE)}


@lru_cache(maxsize=64)  # a client bans the same words in every request
def grammar_without(words: tuple[str, ...]) -> str:
    """GBNF of all texts, the empty one too, that hold none of ``words`` (not empty)."""
    return "\n".join(_rule(state, table) for state, table in enumerate(transitions(words)))


def transitions(words: Iterable[str]) -> list[dict[str, int | None]]:
    """By state what each character leads to: a state, or None where it would complete a word. Any other leads to the beginning, 0."""
    tree: list[dict[str, int]] = [{}]
    complete = set[int]()
    for word in words:
        state = 0
        for character in word:
            following = tree[state].setdefault(character, len(tree))
            if following == len(tree):
                tree.append({})
            state = following
        complete.add(state)
    shorter = [0] * len(tree)  # by state the next longest end of the same text that begins a word
    tables: list[dict[str, int]] = [{} for _ in tree]
    breadth = [0]
    for state in breadth:
        otherwise = tables[shorter[state]] if state else {}
        tables[state] = {**otherwise, **tree[state]}
        for character, following in tree[state].items():
            shorter[following] = otherwise.get(character, 0)
            if shorter[following] in complete:
                complete.add(following)
            breadth.append(following)
    return [{character: None if to in complete else to for character, to in table.items()} for table in tables]


def _rule(state: int, table: dict[str, int | None]) -> str:
    """A state's rule: the text ends, or a character follows and with it the next state.

    Characters that lead to the beginning are written as ranges, since llama.cpp holds a character that has only half come against
    a range by what it may still become, against a negation by what it must not.
    """
    kept = [-1, *sorted(map(ord, table)), LAST + 1]
    others = "".join(f"{_escaped(max(1, low + 1))}-{_escaped(high - 1)}" for low, high in pairwise(kept) if max(1, low + 1) < high)
    named = (f"[{_escaped(ord(character))}] {_name(to)}" for character, to in table.items() if to is not None)
    return " | ".join([f'{_name(state)} ::= ""', f"[{others}] {_name(0)}", *named])


def _name(state: int) -> str:
    return f"s{state}" if state else "root"


def _escaped(code: int) -> str:
    return f"\\U{code:08X}"


def is_read_as_written(piece: str) -> bool:
    """Whether the grammar reads an entry of a byte-level vocabulary as the characters that it writes.

    llama.cpp stops at a zero, and takes the bytes that follow the beginning of a character for its rest whatever they are. A token
    may begin inside a character and end inside one.
    """
    try:
        written = bytes(LETTERS[letter] for letter in piece)
        codecs.getincrementaldecoder("utf-8")().decode(written.lstrip(CONTINUING))
    except (KeyError, UnicodeDecodeError):
        return False
    return b"\0" not in written
