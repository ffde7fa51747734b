from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_assets.corpus.crawl import SITEMAPS, Crawl, crawl, crawled
from llm_assets.corpus.web import Manners, WebError
from llm_assets_tests.corpus.site import Answer, Site, feed, sitemap

NOTHING = Crawl((), (), (), None, 1000, Manners(delay=0))


def paths(site: Site, cache: Path, **wanted: Any) -> list[str]:
    return [page.url.removeprefix(site.address) for page in crawl(replace(NOTHING, **wanted), cache).pages]


def test_pages_are_named_or_found_through_feeds_and_sitemaps(site: Site, tmp_path: Path) -> None:
    a, b, c, d = (site.put(f"/{name}", name) for name in "abcd")
    news = site.put("/feed", feed(c, b, a), "application/rss+xml")
    site.answers["/inner.xml.gz"] = Answer(gzip.compress(sitemap(d, b).encode()))
    index = site.put("/index.xml", sitemap(site.url("/inner.xml.gz"), index=True), "text/xml")
    assert paths(site, tmp_path, urls=(d, b), feeds=(news,), sitemaps=(index,)) == ["/b", "/d", "/a", "/c"]
    assert paths(site, tmp_path, urls=(d,), feeds=(news,), sitemaps=(index,), include="/[bx]$") == ["/d", "/b"]
    assert len(site.asked) == 1 + 3 + 4  # robots.txt, the lists, the pages: all fresh the second time


def test_what_is_found_and_cannot_be_read_is_passed_over_and_counted(site: Site, tmp_path: Path) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /private", "text/plain")
    urls = [*(site.put(f"/{n}", "x") for n in range(5)), site.put("/big", "x" * 2000), site.url("/gone"), site.url("/private"), "ftp://a.example/"]
    gone = site.url("/gone.xml")
    index = site.put("/index.xml", sitemap(site.put("/pages.xml", sitemap(*urls)), gone, index=True), "text/xml")
    wanted = replace(NOTHING, sitemaps=(index,), manners=Manners(delay=0, maximum_bytes=1500))
    found = crawl(wanted, tmp_path)
    assert len(found.pages) == 5 and found.passed_over == {"bad_address": 1, "forbidden": 1, "gone": 2, "too_large": 1}
    few = crawl(replace(wanted, maximum_pages=3, include="/[0-9]$"), tmp_path)
    assert [page.url for page in few.pages] == urls[:3] and few.passed_over == {"beyond_maximum": 2, "gone": 1}


@pytest.mark.parametrize(("path", "reason"), [("/gone", "has gone"), ("/private", "Disallow: /private"), ("/big", "more than 1500 bytes")])
def test_what_is_named_and_cannot_be_read_is_an_error(site: Site, tmp_path: Path, path: str, reason: str) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /private", "text/plain")
    site.put("/big", "x" * 2000)
    for key in ("urls", "feeds", "sitemaps"):
        with pytest.raises(WebError, match=reason):
            paths(site, tmp_path, **{key: (site.url(path),)}, manners=Manners(delay=0, maximum_bytes=1500))


def test_a_list_that_cannot_be_read_is_named(site: Site, tmp_path: Path) -> None:
    url = site.put("/list", "<!DOCTYPE rss []><rss/>", "text/xml")
    for key, what in (("feeds", "feed"), ("sitemaps", "sitemap")):
        with pytest.raises(WebError, match=f"the {what} {url} cannot be read: its XML declares a document type"):
            paths(site, tmp_path, **{key: (url,)})
    many = site.put("/many", sitemap(*(site.url(f"/{number}.xml") for number in range(SITEMAPS + 1)), index=True))
    with pytest.raises(WebError, match="an index of 1001 sitemaps, more than 1000; name those you mean"):
        paths(site, tmp_path, sitemaps=(many,))


def test_what_is_read_is_what_was_observed_last(site: Site, tmp_path: Path) -> None:
    wanted = replace(NOTHING, urls=(site.put("/a", "one"),), manners=Manners(delay=0, refresh=0))
    first = crawled(wanted, tmp_path)
    site.put("/a", "two")
    assert crawled(wanted, tmp_path) == first != crawl(wanted, tmp_path) == crawled(wanted, tmp_path)
