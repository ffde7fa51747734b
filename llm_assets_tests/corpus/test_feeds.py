from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.feeds import feed_links, sitemap_links
from llm_assets_tests.corpus.site import feed, sitemap

PLACE = "https://site.example/news/feed.xml"
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:base="/blog/"><link rel="self" href="feed.xml"/>
<entry><link rel="enclosure" href="a.mp3"/><link href="a.html#top"/></entry>
<entry xml:base="2020/"><link rel="alternate" href=" b.html "/></entry><entry><title>no link</title></entry></feed>"""
BOMB = "<!DOCTYPE rss [<!ENTITY a 'aaaaaaaaaa'>" + "".join(f"<!ENTITY {n} '{f'&{m};' * 10}'>" for m, n in zip("abcdefgh", "bcdefghi", strict=True))


def links(text: str, encoding: str = "utf-8") -> list[str]:
    return feed_links(lambda: io.BytesIO(text.encode(encoding)), PLACE)


def test_the_page_of_every_entry_of_a_feed_is_found() -> None:
    assert links(ATOM) == ["https://site.example/blog/a.html", "https://site.example/blog/2020/b.html"]
    assert links(feed("https://else.example/a", " /b ", "c.html#d", "c.html")) == [
        "https://else.example/a", "https://site.example/b", "https://site.example/news/c.html",
    ]  # fmt: skip
    permanent = "<item><guid>https://a.example/1</guid></item><item><guid isPermaLink='false'>17</guid></item><item><link/></item>"
    assert links(f"<rss><channel>{permanent}</channel></rss>", "utf-16") == ["https://a.example/1"]


def test_a_sitemap_lists_pages_and_an_index_sitemaps() -> None:
    images = "<image:image xmlns:image='http://www.google.com/schemas/sitemap-image/1.1'><image:loc>/a.png</image:loc></image:image></url>"
    pages = sitemap("https://a.example/1", "/2").replace("</url>", images)
    assert sitemap_links(lambda: io.BytesIO(pages.encode()), PLACE) == (["https://a.example/1", "https://site.example/2"], [])
    index = sitemap("https://a.example/1.xml.gz", index=True)
    assert sitemap_links(lambda: io.BytesIO(index.encode()), PLACE) == ([], ["https://a.example/1.xml.gz"])


@pytest.mark.parametrize(("text", "reason"), [
    ("<html/>", "neither RSS 2.0 nor Atom: its root is html"), ("<rss><channel>", "no whole XML"), ("", "no whole XML"), ("{}", "no whole XML"),
    ("<!DOCTYPE rss SYSTEM 'file:///etc/passwd'><rss/>", "declares a document type"), (f"{BOMB}]><rss>&i;</rss>", "declares a document type"),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_is_no_feed_is_refused_at_once(text: str, reason: str, encoding: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=reason):
        links(text, encoding)
    assert time.monotonic() - began < 1


def test_a_feed_is_no_sitemap() -> None:
    with pytest.raises(ValueError, match="no sitemap: its root is rss"):
        sitemap_links(lambda: io.BytesIO(feed().encode()), PLACE)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(content: bytes) -> None:
    for read in (feed_links, sitemap_links):
        with pytest.raises(ValueError):
            read(lambda: io.BytesIO(content), PLACE)
