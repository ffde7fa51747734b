"""Personal data in text: found by pattern and checksum, and replaced by a fixed token a kind.

The tokens are stable words of the vocabulary (the tokenizer never splits them), so a model learns "a phone number stood
here" and nothing of the number. Checksums keep order and product numbers from being taken for identity or card numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_assets.corpus.documents import EVIDENCE_LENGTH

MASKS: Mapping[str, str] = {"email": "[EMAIL]", "ip": "[IP]", "identity": "[ID]", "card": "[CARD]", "phone": "[PHONE]"}
SUSPICIOUS = r"@|\d[\d .()-]{5,}\d"  # RE2 too; a text without a match holds nothing that the patterns below find


class Span(NamedTuple):
    """Where personal data stood in the text before masking; positions in characters, ``end`` exclusive."""

    rule: str
    start: int
    end: int


@dataclass(frozen=True)
class Pattern:
    """One kind of personal data."""

    rule: str
    expression: re.Pattern[str]
    confirms: Callable[[str], bool] = lambda value: True


def luhn(value: str) -> bool:
    """Whether the digits of a card number satisfy the Luhn checksum (ISO/IEC 7812-1); spaces and hyphens are skipped."""
    digits = [int(character) for character in value if character.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def resident_identity(value: str) -> bool:
    """Whether an 18-character Chinese resident identity number has the right check character (GB 11643-1999, ISO 7064 MOD 11-2)."""
    weighted = sum(int(digit) * pow(2, 17 - index, 11) for index, digit in enumerate(value[:17]))
    return "10X98765432"[weighted % 11] == value[17].upper()


OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
ADDRESS = r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[A-Za-z0-9_])?@[A-Za-z0-9](?:[A-Za-z0-9-]*\.)+[A-Za-z]{2,24}(?![A-Za-z0-9])"
IDENTITY = r"(?<!\d)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
CARD = r"(?<!\d)(?<!\d[ -])[2-6](?:[ -]?\d){12,18}(?![ -]?\d)"
MOBILE = r"(?<![\d+])(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?!\d)"  # mainland China
COUNTRY = r"(?:\+(?=(?:[ ()-]*\d){7})|00(?=(?:[ ()-]*\d){9}))"  # so many digits at least: 002345 is a stock
INTERNATIONAL = rf"(?<!\d){COUNTRY}[1-9]\d{{0,2}}[ -]?(?:\(0?\d{{1,4}}\)[ -]?)?\d{{1,4}}(?:[ -]?\d{{2,4}}){{1,4}}(?!\d)"  # ITU-T E.164
LANDLINE = r"(?<!\d)\(?0\d{2,3}\)?[ -]\d{7,8}(?!\d)"  # mainland China, with the area code

# In this order: the first kind that claims a stretch of text keeps it.
PATTERNS = (
    Pattern("email", re.compile(ADDRESS, re.ASCII)),
    Pattern("ip", re.compile(rf"(?<![\d.])(?:{OCTET}\.){{3}}{OCTET}(?!\.?\d)", re.ASCII)),
    Pattern("identity", re.compile(IDENTITY, re.ASCII), resident_identity),
    Pattern("card", re.compile(CARD, re.ASCII), luhn),
    Pattern("phone", re.compile(MOBILE, re.ASCII)),
    Pattern("phone", re.compile(INTERNATIONAL, re.ASCII)),
    Pattern("phone", re.compile(LANDLINE, re.ASCII)),
)


def find(text: str) -> list[Span]:
    """Every stretch of personal data in a normalised text, in order and without overlaps."""
    found: list[Span] = []
    for pattern in PATTERNS:
        for match in pattern.expression.finditer(text):
            free = all(match.end() <= span.start or span.end <= match.start() for span in found)
            if free and pattern.confirms(match.group()):
                found.append(Span(pattern.rule, *match.span()))
    return sorted(found, key=lambda span: span.start)


def mask_all(texts: Sequence[str]) -> tuple[list[str], dict[int, list[Span]]]:
    """``mask`` over many texts: the masked texts, and the spans of those that held personal data, by their index.

    One pass of Arrow's regular expressions picks the few texts that are worth the seven patterns.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    masked, spans = list(texts), {}
    suspects = pc.indices_nonzero(pc.match_substring_regex(pa.array(texts, pa.string()), SUSPICIOUS))
    for index in suspects.to_pylist():
        masked[index], found = mask(texts[index])
        if found:
            spans[index] = found
    return masked, spans


def mask(text: str) -> tuple[str, list[Span]]:
    """The text with each stretch of personal data replaced by its token, and the stretches. Masking twice changes nothing more."""
    spans = find(text)
    return replace(text, spans), spans


def excerpt(text: str) -> str:
    """The beginning of a text as evidence may show it: masked, at most 80 characters."""
    return mask(text[: 4 * EVIDENCE_LENGTH])[0][:EVIDENCE_LENGTH]  # more is masked than is shown, so that no number is cut in two


def replace(text: str, spans: Iterable[Span]) -> str:
    """The text with each span replaced by the token of its rule."""
    for span in sorted(spans, key=lambda span: -span.start):
        text = text[: span.start] + MASKS[span.rule] + text[span.end :]
    return text
