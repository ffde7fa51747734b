"""Which pages a crawl reads: those it names, and those that feeds and sitemaps point to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llm_assets.corpus.feeds import Sitemap, feed_links, sitemap_links
from llm_assets.corpus.unpacking import opener
from llm_assets.corpus.web import Fetcher, Manners, Page, UnusablePageError, WebError

SITEMAPS = 1000  # of one index; at a request a second they take a quarter of an hour


@dataclass(frozen=True)
class Crawl:
    """What is asked for."""

    urls: tuple[str, ...]
    feeds: tuple[str, ...]
    sitemaps: tuple[str, ...]
    include: str | None  # regular expression that must be found in the URL of a page that a feed or sitemap names
    maximum_pages: int
    manners: Manners


class Crawled(NamedTuple):
    """What was found."""

    pages: tuple[Page, ...]  # those named, then those found, each by URL
    passed_over: Mapping[str, int]  # pages and sitemaps that were found and not read, by reason


_crawled: dict[tuple[Crawl, Path], Crawled] = {}


def crawl(wanted: Crawl, cache: Path) -> Crawled:
    """Brings every page into the cache. Raises ``WebError`` for a named page, feed or sitemap that cannot be had, and for a found one
    that does not arrive; a found one that robots.txt forbids, that has gone or is too large is passed over and counted.
    """
    passed_over: Counter[str] = Counter()
    with Fetcher(cache, wanted.manners) as fetcher:
        named = sorted(set(wanted.urls))
        found = sorted({url for url in _found(wanted, fetcher, passed_over) if re.search(wanted.include or "", url)} - set(named))
        free = wanted.maximum_pages - len(named)
        pages = [fetcher.page(url) for url in named]
        pages += [page for url in found[:free] if (page := _usable(fetcher, url, passed_over))]
    if len(found) > free:
        passed_over["beyond_maximum"] = len(found) - free
    result = Crawled(tuple(pages), dict(sorted(passed_over.items())))
    _crawled[wanted, cache] = result
    return result


def crawled(wanted: Crawl, cache: Path) -> Crawled:
    """What this process found last, which is what the recipe names: the web may have moved since."""
    return _crawled.get((wanted, cache)) or crawl(wanted, cache)


def _found(wanted: Crawl, fetcher: Fetcher, passed_over: Counter[str]) -> set[str]:
    found: set[str] = set()
    for url in wanted.feeds:
        found.update(_links(fetcher.page(url)))
    for url in wanted.sitemaps:
        listed = _sitemap(fetcher.page(url))
        if len(listed.sitemaps) > SITEMAPS:
            raise WebError(f"{url} is an index of {len(listed.sitemaps)} sitemaps, more than {SITEMAPS}; name those you mean under `sitemaps`")
        found.update(listed.pages)
        for page in filter(None, (_usable(fetcher, sitemap, passed_over) for sitemap in listed.sitemaps)):
            found.update(_sitemap(page).pages)  # sitemaps.org: an index lists no other index
    return found


def _usable(fetcher: Fetcher, url: str, passed_over: Counter[str]) -> Page | None:
    try:
        return fetcher.page(url)
    except UnusablePageError as error:
        passed_over[error.rule] += 1
        return None


def _links(feed: Page) -> list[str]:
    try:
        return feed_links(opener(feed.path), feed.url)
    except (ValueError, OSError) as error:
        raise WebError(f"the feed {feed.url} cannot be read: {error}") from error


def _sitemap(page: Page) -> Sitemap:
    try:
        return sitemap_links(opener(page.path), page.url)
    except (ValueError, OSError) as error:
        raise WebError(f"the sitemap {page.url} cannot be read: {error}") from error
