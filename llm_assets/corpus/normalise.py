"""One spelling for every text: the corpus, the evaluation sets and the served requests all pass through here.

The version goes into what is served, so a model always meets text normalised the way it was trained on.
"""

from __future__ import annotations

import html
import re
import unicodedata

NORMALISER_VERSION = 1  # raised by hand when the same text would now come out otherwise

_LINE_TAG = re.compile(r"</?(?:br|p|div|li|tr|h[1-6])(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>|<!--.*?-->", re.DOTALL)
_BREAK = re.compile(r"[^\S\n]*\n\s*")  # a run of white space with a line break in it
_SPACE = re.compile(r"[^\S\n]+")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co"})  # control, format (zero-width, direction marks), surrogate, private use


def normalise(text: str) -> str:
    """The text in Unicode NFKC, HTML entities resolved, tags dropped, invisible characters removed, white space collapsed.

    A run of white space becomes one line feed if it holds a line break (or an HTML line tag), else one space. Idempotent:
    the steps repeat until nothing changes, since resolving an entity or removing a zero-width character can form a new tag.
    """
    while (cleaned := _pass(text)) != text:
        text = cleaned
    return text


def _pass(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _LINE_TAG.sub("\n", text))
    if not text.isprintable():  # a fast test in C; line feeds and tabs fail it too, and are kept below
        invisible = {character for character in set(text) if unicodedata.category(character) in _INVISIBLE and not character.isspace()}
        text = text.translate(dict.fromkeys(map(ord, invisible))) if invisible else text
        text = _BREAK.sub("\n", text)
    return _SPACE.sub(" ", text).strip()
