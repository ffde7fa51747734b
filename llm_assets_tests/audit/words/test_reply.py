from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.text import Text
from rich.tree import Tree

from llm_assets.audit.needles import spelled
from llm_assets.audit.words.reply import Reply, as_markdown, write_page
from llm_assets.store.verdict import Verdict


def shown(markdown: str) -> str:
    """The text that a reader of Markdown sees."""
    return unescape(re.sub("<[^>]*>", "", MarkdownIt("commonmark").render(markdown)))


LINES = st.text(st.sampled_from("a1_*`~[]()<>#|&;\\-+=.! \n\"'好"), min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.lists(LINES, min_size=1, max_size=4))
def test_markdown_shows_each_line_as_it_came(lines: list[str]) -> None:
    tree = Tree(Text("title"))
    for line in lines:
        tree.add(Text(line))
    seen = shown(as_markdown([*lines, tree]))
    assert seen.split() == " ".join([*lines, "title", *lines]).split()


def test_a_tree_is_nested_lists() -> None:
    tree = Tree(Text("a"))
    tree.add(Text("b")).add(Text("c", style="red"))
    tree.add("d")
    assert as_markdown(["raw_corpus 1", tree]) == "raw_corpus 1\n\n**a**\n\n- b\n  - c\n- d\n"


def test_a_page_holds_a_text_as_a_search_looks_for_it(tmp_path: Path) -> None:
    text = 'It\'s *good*, <br />\r\n"very" & 安静_'
    url = write_page(tmp_path, Reply("trace", "ab/c d", [text], {}))
    assert url.endswith("/audit/trace-ab-c-d.html")
    page = (tmp_path / "audit" / "pages" / "trace-ab-c-d.html").read_bytes()
    assert spelled([text]).stand_in(page) and b"<br" not in page and page.startswith(b"<!doctype html>")


@pytest.mark.parametrize(("passed", "blocking", "red"), [(True, True, False), (False, False, False), (False, True, True)])
def test_bad_news_is_red(tmp_path: Path, passed: bool, blocking: bool, red: bool) -> None:
    write_page(tmp_path, Reply("verify", "", ["said"], {}, Verdict(check="whole", passed=passed, blocking=blocking, description="said")))
    assert ('<h1 class="failed">' in (tmp_path / "audit" / "pages" / "verify-all.html").read_text()) == red


def test_dagster_is_told_no_piece_of_a_text() -> None:
    assert Reply("trace", "a", ["quoted"], {}, unquoted=["masked"]).markdown == "masked\n"
    assert Reply("diff", "a b", ["said"], {}).markdown == "said\n"
