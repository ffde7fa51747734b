from __future__ import annotations

import html
import json

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_assets.audit import needles as module
from llm_assets.audit.needles import Needles, spelled

LETTERS = st.text("ab好", max_size=40)


@given(LETTERS, st.lists(st.text("ab好", max_size=9), max_size=8))
def test_it_finds_what_a_plain_search_finds(content: str, wanted: list[str]) -> None:
    text, needles = content.encode(), {one.encode() for one in wanted if one}
    expected = {(place, needle) for needle in needles for place in range(len(text)) if text.startswith(needle, place)}
    found = list(Needles(needles).matches(text))
    assert len(found) == len(set(found)) and set(found) == expected


def test_nothing_is_lost_where_one_stride_ends(monkeypatch) -> None:
    monkeypatch.setattr(module, "STRIDE", 64)
    for shift in range(70):
        assert list(Needles([b"needle here"]).matches(b"x" * shift + b"needle here")) == [(shift, b"needle here")]


def test_a_text_is_found_however_it_is_written() -> None:
    text = "很\"好\" & '安静'\n"
    inner = json.dumps({"a": text})
    rendered = MarkdownIt().renderInline(text.replace("\n", "&#10;"))
    for written in (text, html.escape(text), rendered, json.dumps(text), json.dumps(text, ensure_ascii=False), json.dumps({"b": inner})):
        assert spelled([text]).stand_in(written.encode()), written
    assert not spelled([text]).stand_in(b"another") and not spelled([]).stand_in(b"anything at all")
