"""What licences permit and demand, in short and from their own words: no legal advice, and a licence that is not in the table is said to be unknown.

Names are SPDX's (https://spdx.org/licenses/). Permissions and conditions are those of https://choosealicense.com/appendix/ (its `_licenses/` at
aed28f9), compared with the texts themselves: Creative Commons 4.0, sections 2(a) and 3, and 2.5 and 3.0, section 4; ODbL 1.0, sections 4.2 to
4.7; LGPL 3.0, sections 2 and 4; MPL 2.0, section 3. Of ODC-By the summary at https://opendatacommons.org/licenses/by/summary/ and of PDDL the
preamble were read, not the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Use = Literal["commercial", "research", "education"]
USES: tuple[Use, ...] = ("commercial", "research", "education")

NOTICE = "keep the copyright notice and the licence's text with every copy"
CHANGES = "say so where it was changed"
CREDIT = "name the author, the source and the licence, with a link to it, and keep its notices"
SAME = "pass on what was made from it under the same licence only, or one that it permits instead"
SAME_LIBRARY = "pass on changes of it under the same licence only, or one that it permits instead"
SAME_DATABASE = "pass on databases made from it under the same licence only, or one that it permits instead, and unlocked"
SOURCE = "offer the source with every copy"
UNSHARED = "pass on nothing that was made from it"  # since version 4.0, which permits making it
UNCHANGED = "make nothing from it"  # before


@dataclass(frozen=True)
class Terms:
    """What one licence permits and demands."""

    licence: str  # in the words of the source
    is_known: bool
    uses: tuple[Use, ...]  # none where it is unknown
    demands: tuple[str, ...]

    def __str__(self) -> str:
        """A sentence for people."""
        if not self.is_known:
            return f"{self.licence}: unknown, so nobody here can say what it permits or demands"
        only = "" if set(self.uses) == set(USES) else f"for {' and '.join(self.uses)} only"
        return f"{self.licence}: {'; '.join(filter(None, (only, *self.demands))) or 'nothing'}"


# Pattern, uses, demands; the first that matches counts, upper and lower case alike.
TABLE: tuple[tuple[str, tuple[Use, ...], tuple[str, ...]], ...] = (
    ("MIT", USES, (NOTICE,)),
    ("MIT-0", USES, ()),
    ("ISC", USES, (NOTICE,)),
    ("BSD-2-Clause", USES, (NOTICE,)),
    ("BSD-3-Clause", USES, (NOTICE, "use nobody's name to promote what was made from it, unless permitted in writing")),
    ("Apache-2.0", USES, (NOTICE, "keep its NOTICE file", CHANGES)),
    ("MPL-2.0", USES, (NOTICE, "offer the source of its files, under the same licence")),
    ("LGPL-*", USES, (NOTICE, CHANGES, SOURCE, SAME_LIBRARY)),
    ("AGPL-*", USES, (NOTICE, CHANGES, SOURCE, SAME, "offer the source to those who use it over a network, too")),
    ("GPL-*", USES, (NOTICE, CHANGES, SOURCE, SAME)),
    ("CC-BY-NC-ND-4.0", ("research", "education"), (CREDIT, CHANGES, UNSHARED)),
    ("CC-BY-NC-ND-*", ("research", "education"), (CREDIT, UNCHANGED)),
    ("CC-BY-NC-SA-*", ("research", "education"), (CREDIT, CHANGES, SAME)),
    ("CC-BY-NC-*", ("research", "education"), (CREDIT, CHANGES)),
    ("CC-BY-ND-4.0", USES, (CREDIT, CHANGES, UNSHARED)),
    ("CC-BY-ND-*", USES, (CREDIT, UNCHANGED)),
    ("CC-BY-SA-*", USES, (CREDIT, CHANGES, SAME)),
    ("CC-BY-*", USES, (CREDIT, CHANGES)),
    ("ODbL-*", USES, (CREDIT, SAME_DATABASE, "offer a database made from it, or what was changed, to whoever gets it or a work made from it")),
    ("ODC-By-*", USES, (CREDIT,)),
    *((name, USES, ()) for name in ("CC0-*", "PDDL-*", "0BSD", "Unlicense", "public domain")),
    *((name, ("research",), ()) for name in ("research", "research only", "for research")),
    *((name, ("education",), ()) for name in ("education", "educational", "Free For Educational Use", "free for educational use only")),
    *((name, USES, ()) for name in ("yours", "ours", "own")),  # the chain's owner's own text
)
PARTS = re.compile(r"\s+AND\s+|\s*[();]\s*")  # "MIT (IMDB: research)": the archive's licence, and that of what is in it


def terms_of(licence: str) -> list[Terms]:
    """The terms of everything that a source's statement names, such as both of ``MIT (IMDB: research)``."""
    return [_terms(part) for part in PARTS.split(licence) if part]


def terms(licences: Iterable[str]) -> list[Terms]:
    """The terms of several statements, each once."""
    return list(dict.fromkeys(one for licence in licences for one in terms_of(licence)))


def _terms(part: str) -> Terms:
    name = part.rpartition(": ")[2].strip().casefold()  # "IMDB: research" says whose it is first
    for pattern, uses, demands in TABLE:
        if fnmatchcase(name, pattern.casefold()):
            return Terms(part, True, uses, demands)
    return Terms(part, False, (), ())
