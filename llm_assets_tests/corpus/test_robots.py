"""The examples of RFC 9309, and what hostile files may not do."""

from __future__ import annotations

import time
from urllib.robotparser import RobotFileParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.robots import parse

STANDARD = b"""\
User-Agent: foobot
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
User-agent: barbot
Disallow: /merged  # both groups count

User-Agent: *
Crawl-delay: 2.5
Disallow: /

User-Agent: bazbot
"""


def allowed(content: bytes, target: str, product: str = "llm-assets") -> bool:
    return parse(content, product).forbidding(target) is None


def test_the_group_that_names_the_robot_holds_else_that_for_all() -> None:
    assert not allowed(STANDARD, "/example/page", "foobot") and not allowed(STANDARD, "/merged/a", "FooBot")
    assert allowed(STANDARD, "/publications/a", "foobot") and not allowed(STANDARD, "/a/b.gif", "foobot") and allowed(STANDARD, "/b.gif?x", "foobot")
    assert not allowed(STANDARD, "/anything") and parse(STANDARD, "llm-assets").delay == 2.5 and parse(STANDARD, "foobot").delay == 0
    assert allowed(STANDARD, "/anything", "bazbot") and allowed(STANDARD, "/robots.txt")
    assert str(parse(STANDARD, "foobot").forbidding("/example/page")) == "Disallow: /example/"


@pytest.mark.parametrize(("rules", "target", "expected"), [
    ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/disallowed.gif", False),  # the longest holds
    ("Disallow: /a\nAllow: /a", "/ab", True),  # of equal ones, Allow
    ("Disallow:", "/a", True), ("Disallow: /", "/robots.txt", True),
    ("Disallow: /*?sort=", "/list?page=1", True), ("Disallow: /*?sort=", "/list?sort=up", False),
    ("Disallow: /a*b*c$", "/a-b-c", False), ("Disallow: /a*b*c$", "/a-b-c-d", True), ("Disallow: /a$", "/a", False), ("Disallow: /a$", "/ab", True),
    ("Disallow: /a*a$", "/a", True),  # the star may be empty, what is before and after it may not overlap
    ("Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False), ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
    ("Disallow: /a%2Fb", "/a/b", True), ("Disallow: /a%2a", "/a*", False), ("Disallow: /a%2a", "/ab", True),
    ("Disallow /a\nnonsense\n: x\nCrawl-delay: soon", "/a", True),
])  # fmt: skip
def test_rules_match_as_the_standard_says(rules: str, target: str, expected: bool) -> None:
    assert allowed(f"\ufeffUser-agent: *\r\n{rules}".encode(), target) is expected


def test_no_rules_forbid_nothing() -> None:
    assert allowed(b"", "/a") and allowed(b"Disallow: /a", "/a") and allowed(b"User-agent: other\nDisallow: /", "/a")


def test_a_hostile_rule_is_answered_at_once() -> None:
    began = time.monotonic()
    assert allowed(b"User-agent: *\nDisallow: /" + b"*a" * 5_000 + b"$", "/" + "a" * 4_000)
    assert time.monotonic() - began < 1


@given(st.binary(max_size=400), st.text(max_size=40))
def test_no_bytes_crash_the_parser(content: bytes, target: str) -> None:
    parse(b"User-agent: *\n" + content, "llm-assets").forbidding("/" + target)


WORDS = st.lists(st.text("ab", min_size=1, max_size=2), max_size=2).map("/".join)  # of an empty segment the library thinks otherwise


@given(st.lists(WORDS, max_size=4), WORDS)
def test_plain_prefixes_are_judged_as_the_standard_library_does(prefixes: list[str], target: str) -> None:
    lines = ["User-agent: *", *(f"Disallow: /{prefix}" for prefix in prefixes)]
    theirs = RobotFileParser()
    theirs.parse(lines)
    assert allowed("\n".join(lines).encode(), f"/{target}") == theirs.can_fetch("llm-assets", f"http://site/{target}")
