"""What a site's robots.txt allows this project's robot (RFC 9309).

Not ``urllib.robotparser``: it knows neither the standard's wildcards nor its longest match, so that it would fetch what
``Disallow: /*?sort=`` forbids, and it cannot name the rule.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

SIZE = 500 << 10  # bytes that are parsed, the least that the standard asks for
PRODUCT = re.compile(r"[a-z_-]+|\*", re.IGNORECASE)
TRIPLET = re.compile(r"%[0-9a-f]{2}", re.IGNORECASE)
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")  # RFC 3986: these mean the same whether they are percent-encoded or not
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class Rule(NamedTuple):
    """One line of a group; ``path`` may hold ``*`` and end in ``$``."""

    allows: bool
    path: str

    def __str__(self) -> str:
        return f"{'Allow' if self.allows else 'Disallow'}: {self.path}"


@dataclass(frozen=True)
class Robots:
    """The rules of the group that names a product, else of the group for all."""

    rules: tuple[Rule, ...]
    delay: float = 0  # seconds between two requests, as the group's Crawl-delay asks (no part of the standard, widely written)

    def forbidding(self, target: str) -> Rule | None:
        """The rule that forbids ``target``, a URL's path and query as they are sent: the longest that matches, and no ``Allow`` as long."""
        path = _comparable(target).replace("*", "%2A").replace("$", "%24")
        matching = (rule for rule in self.rules if rule.path and _matches(_comparable(rule.path), path))
        strongest = max(matching, key=lambda rule: (len(_comparable(rule.path)), rule.allows), default=None)
        return None if strongest is None or strongest.allows or target == "/robots.txt" else strongest


def parse(content: bytes, product: str) -> Robots:
    """The rules of a robots.txt for a robot of this product token; lines that are no rule are passed over."""
    groups: dict[str, list[tuple[str, str]]] = {}
    agents: list[str] = []
    has_rules = False
    for line in content[:SIZE].removeprefix(codecs.BOM_UTF8).splitlines():
        key, _, value = (part.strip() for part in line.decode("utf-8", "replace").partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            agents = [] if has_rules else agents
            has_rules = False
            named = PRODUCT.match(value)
            agents += [named.group().lower()] if named else []
            groups |= {agent: groups.get(agent, []) for agent in agents}
        elif key.lower() in ("allow", "disallow", "crawl-delay"):
            has_rules = True
            for agent in agents:
                groups[agent].append((key.lower(), value))
    chosen = groups.get(product.lower(), groups.get("*", []))
    return Robots(
        rules=tuple(Rule(key == "allow", value) for key, value in chosen if key != "crawl-delay"),
        delay=max((_seconds(value) for key, value in chosen if key == "crawl-delay"), default=0),
    )


def _comparable(path: str) -> str:
    """A path in one spelling: what need not be percent-encoded is not, all else is."""

    def plain(triplet: re.Match[str]) -> str:
        character = chr(int(triplet.group()[1:], 16))
        return character if UNRESERVED.fullmatch(character) else triplet.group().upper()

    return quote(TRIPLET.sub(plain, path), safe=PRINTABLE)


def _matches(pattern: str, path: str) -> bool:
    """Whether a path begins with what a pattern says; in time linear in both, since a regular expression could be made to run for ever."""
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    if not pattern.endswith("$"):
        last = ""
    elif rest:
        last = rest.pop()
    else:
        return path == first
    for piece in rest:
        position = path.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return path.endswith(last) and len(path) - len(last) >= position


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0
    return max(0.0, seconds) if math.isfinite(seconds) else 0
