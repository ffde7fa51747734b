"""Personal data in text: found by pattern, checksum, grammar and a recogniser of names, and replaced by a fixed token a kind.

The tokens are stable words of the vocabulary (the tokenizer never splits them), so a model learns "a phone number stood
here" and nothing of the number. Checksums keep order and product numbers from being taken for identity or card numbers.
Chinese names are recognised by what they look like and stand in (`recogniser/names.py`), English ones after a title only.
`python -m benchmarks masking` tells how many of each kind are found, and how much else.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_assets.corpus import addresses
from llm_assets.corpus.documents import EVIDENCE_LENGTH
from llm_assets.corpus.recogniser.names import find_names

MASKS: Mapping[str, str] = {
    "email": "[EMAIL]",
    "ip": "[IP]",
    "identity": "[ID]",
    "card": "[CARD]",
    "phone": "[PHONE]",
    "address": "[ADDRESS]",
    "name": "[NAME]",
}
TOKEN = re.compile("|".join(re.escape(token) for token in MASKS.values()))
TITLE = r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor)\b"
# RE2 too; a text without a match holds nothing that the patterns below find.
NUMBERED = r"@|\d[\d .()-]{5,}\d|:[0-9A-Fa-f]{0,4}:"
FEW = 5000  # characters, up to which Python's own search takes less time than compiling
NAMED = rf"{TITLE}|[Mm]y name is"


class Span(NamedTuple):
    """Where personal data stood in the text before masking; positions in characters, ``end`` exclusive."""

    rule: str
    start: int
    end: int


@dataclass(frozen=True)
class Pattern:
    """One kind of personal data; what a group of the expression holds is it, where there is one."""

    rule: str
    expression: re.Pattern[str]
    confirms: Callable[[str], bool] = lambda value: True
    suspicious: str = NUMBERED  # asked first, of all texts at once


def luhn(value: str) -> bool:
    """Whether the digits of a card number satisfy the Luhn checksum (ISO/IEC 7812-1); spaces and hyphens are skipped."""
    digits = [int(character) for character in value if character.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def resident_identity(value: str) -> bool:
    """Whether an 18-character Chinese resident identity number has the right check character (GB 11643-1999, ISO 7064 MOD 11-2)."""
    weighted = sum(int(digit) * pow(2, 17 - index, 11) for index, digit in enumerate(value[:17]))
    return "10X98765432"[weighted % 11] == value[17].upper()


def internet_protocol_6(value: str) -> bool:
    """Whether this is an IPv6 address (RFC 4291) of two groups and a digit at least: `a::b` is C++, `::` may be anything."""
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return len(value.replace(":", " ").split()) > 1 and any(character.isdigit() for character in value)


OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IP_4 = rf"(?:{OCTET}\.){{3}}{OCTET}"
IP_6 = rf"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{{2,39}}(?:(?<=:){IP_4})?(?![\w:]|\.\d)"
EMAIL = r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[A-Za-z0-9_])?@[A-Za-z0-9](?:[A-Za-z0-9-]*\.)+[A-Za-z]{2,24}(?![A-Za-z0-9])"
IDENTITY = r"(?<!\d)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
CARD = r"(?<!\d)(?<!\d[ -])[2-6](?:[ -]?\d){12,18}(?![ -]?\d)"
MOBILE = r"(?<![\d+])(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?!\d)"  # mainland China
COUNTRY = r"(?:\+(?=(?:[ ()-]*\d){7})|00(?=(?:[ ()-]*\d){9}))"  # so many digits at least: 002345 is a stock
INTERNATIONAL = rf"(?<!\d){COUNTRY}[1-9]\d{{0,2}}[ -]?(?:\(0?\d{{1,4}}\)[ -]?)?\d{{1,4}}(?:[ -]?\d{{2,4}}){{1,4}}(?!\d)"  # ITU-T E.164
LANDLINE = r"(?<!\d)(?:\(0\d{2,3}\)[ -]?|0\d{2,3}[ -])\d{3,4}[ -]?\d{4}(?!\d)"  # mainland China, with the area code
ENGLISH_WORD = r"(?:[A-Z]\. ?)*[A-Z][A-Za-z'-]*[a-z]"
ENGLISH_NAME = rf"(?:{TITLE}(?:\. ?| )|\b[Mm]y name is )({ENGLISH_WORD}(?: {ENGLISH_WORD}){{0,3}})"

# In this order: the first kind that claims a stretch of text keeps it.
PATTERNS = (
    Pattern("email", re.compile(EMAIL, re.ASCII)),
    Pattern("ip", re.compile(IP_6, re.ASCII), internet_protocol_6),
    Pattern("ip", re.compile(rf"(?<![\d.]){IP_4}(?!\.?\d)", re.ASCII)),
    Pattern("identity", re.compile(IDENTITY, re.ASCII), resident_identity),
    Pattern("card", re.compile(CARD, re.ASCII), luhn),
    Pattern("phone", re.compile(MOBILE, re.ASCII)),
    Pattern("phone", re.compile(INTERNATIONAL, re.ASCII)),
    Pattern("phone", re.compile(LANDLINE, re.ASCII)),
    Pattern("address", addresses.EXPRESSION, suspicious=addresses.SUSPICIOUS),
    Pattern("name", re.compile(ENGLISH_NAME), suspicious=NAMED),
)

SUSPICIOUS = tuple(dict.fromkeys(pattern.suspicious for pattern in PATTERNS))


def mask_all(texts: Sequence[str]) -> tuple[list[str], dict[int, list[Span]]]:
    """The texts with each stretch of personal data replaced by its token, and the stretches of those that held some, by index.

    Masked text is searched again until nothing is found, since a mask changes what its neighbours stand beside: masking
    twice changes nothing more. Every round takes letters or digits away, so there is a last one.
    """
    masked, spans = list(texts), dict[int, list[Span]]()
    waiting = list(range(len(texts)))
    while waiting:
        found = _find_all([masked[index] for index in waiting])
        for place, fresh in found.items():
            index = waiting[place]
            spans[index] = _united(spans.get(index, []), fresh)
            masked[index] = replace(texts[index], spans[index])
        waiting = [waiting[place] for place in found]
    return masked, dict(sorted(spans.items()))


def mask(text: str) -> tuple[str, list[Span]]:
    """``mask_all`` of one text."""
    masked, spans = mask_all([text])
    return masked[0], spans.get(0, [])


def excerpt(text: str) -> str:
    """``excerpts`` of one text."""
    return excerpts([text])[0]


def excerpts(texts: Sequence[str]) -> list[str]:
    """The beginnings of texts as evidence may show them: masked, at most 80 characters, and nothing more is found in them."""
    shown = [text[:EVIDENCE_LENGTH] for text in mask_all([text[: 4 * EVIDENCE_LENGTH] for text in texts])[0]]  # so no number is cut in two
    while (again := [text[:EVIDENCE_LENGTH] for text in mask_all(shown)[0]]) != shown:  # a name may look like one only where the text ends
        shown = again
    return shown


def replace(text: str, spans: Iterable[Span]) -> str:
    """The text with each span replaced by the token of its rule."""
    for span in sorted(spans, key=lambda span: -span.start):
        text = text[: span.start] + MASKS[span.rule] + text[span.end :]
    return text


def _find_all(texts: Sequence[str]) -> dict[int, list[Span]]:
    """What one search finds, by index: by pattern in the few texts that cheap regular expressions suspect, and names in all."""
    found: dict[int, list[Span]] = {}
    suspected: dict[int, list[str]] = {}
    some = _suspects(texts, "|".join(SUSPICIOUS))
    for expression in SUSPICIOUS:
        for place in _suspects([texts[index] for index in some], expression):
            suspected.setdefault(some[place], []).append(expression)
    for index, expressions in sorted(suspected.items()):
        if spans := _find_patterns(texts[index], [pattern for pattern in PATTERNS if pattern.suspicious in expressions]):
            found[index] = spans
    for index, names in find_names(texts).items():
        claimed = found.setdefault(index, [])
        claimed += [span for span in (Span("name", start, end) for start, end in names) if _is_free(span, claimed)]
    return found


def _suspects(texts: Sequence[str], expression: str) -> list[int]:
    """The texts in which an expression is found. Arrow compiles it anew each time, which takes Python's own search of a few texts."""
    if sum(map(len, texts)) < FEW:
        search = re.compile(expression, re.ASCII).search  # as RE2 reads it; compiled once, since `re` keeps it
        return [index for index, text in enumerate(texts) if search(text)]
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[int] = pc.indices_nonzero(pc.match_substring_regex(pa.array(texts, pa.string()), expression)).to_pylist()
    return found


def _find_patterns(text: str, patterns: Iterable[Pattern]) -> list[Span]:
    found: list[Span] = []
    for pattern in patterns:
        for match in pattern.expression.finditer(text):
            span = Span(pattern.rule, *match.span(match.lastindex or 0))
            if _is_free(span, found) and pattern.confirms(match.group()):
                found.append(span)
    return found


def _is_free(span: Span, claimed: Iterable[Span]) -> bool:
    return all(span.end <= other.start or other.end <= span.start for other in claimed)


def _united(spans: Sequence[Span], fresh: Iterable[Span]) -> list[Span]:
    """Spans of a text, and those found after these had been replaced, as spans of the text."""
    moved = []
    for rule, start, end in fresh:
        shift = 0
        for span in spans:
            if span.start + len(MASKS[span.rule]) <= start + shift:
                shift += span.end - span.start - len(MASKS[span.rule])
        moved.append(Span(rule, start + shift, end + shift))
    return sorted([*spans, *moved], key=lambda span: span.start)
