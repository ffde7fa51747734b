"""The pages that feeds (RSS 2.0, Atom: RFC 4287) and sitemaps (sitemaps.org) point to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urljoin
from xml.etree import ElementTree

from llm_assets.corpus.unpacking import Opener

BLOCK = 1 << 16  # bytes handed to the parser at once: so much at most of a refused document is looked at
ATOM = "{http://www.w3.org/2005/Atom}"
BASE = "{http://www.w3.org/XML/1998/namespace}base"


class Sitemap(NamedTuple):
    """What a sitemap, or an index of sitemaps, lists."""

    pages: list[str]
    sitemaps: list[str]


def feed_links(open_bytes: Opener, url: str) -> list[str]:
    """The page of each entry of the feed at ``url``, in its order.

    Raises ``ValueError`` for what is neither RSS 2.0 nor Atom, and for XML with a document type, in which entities could be declared.
    """
    root = _parse(open_bytes)
    if root.tag == f"{ATOM}feed":
        return _resolved(_atom_links(root, url), url)
    if root.tag == "rss":
        return _resolved(filter(None, map(_rss_link, root.iterfind("channel/item"))), url)
    raise ValueError(f"it is neither RSS 2.0 nor Atom: its root is {root.tag}")


def sitemap_links(open_bytes: Opener, url: str) -> Sitemap:
    """The pages of the sitemap at ``url``, or the sitemaps of an index. Raises ``ValueError`` as ``feed_links`` does."""
    root = _parse(open_bytes)
    kind = root.tag.rpartition("}")[2]
    if kind not in ("urlset", "sitemapindex"):
        raise ValueError(f"it is no sitemap: its root is {root.tag}")
    pages, sitemaps = ((element.text or "" for element in root.iterfind(f"{{*}}{name}/{{*}}loc")) for name in ("url", "sitemap"))
    return Sitemap(_resolved(pages, url), _resolved(sitemaps, url))


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before anything that the document type declares is read."""
        raise ValueError("its XML declares a document type (DOCTYPE), which could hide entities of any size; nothing is read")


def _parse(open_bytes: Opener) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        with open_bytes() as stream:
            while block := stream.read(BLOCK):
                parser.feed(block)
        root = parser.close()
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no whole XML ({error})") from error
    assert isinstance(root, ElementTree.Element)
    return root


def _rss_link(item: ElementTree.Element) -> str | None:
    """An item's link, else its guid where that is one."""
    guid = item.find("guid")
    is_link = guid is not None and guid.get("isPermaLink", "true") == "true"
    return item.findtext("link") or (guid.text if guid is not None and is_link else None)


def _atom_links(feed: ElementTree.Element, url: str) -> Iterator[str]:
    for entry in feed.iterfind(f"{ATOM}entry"):
        link = next((link for link in entry.iterfind(f"{ATOM}link") if link.get("rel", "alternate") == "alternate"), None)
        if link is not None:
            base = url
            for element in (feed, entry, link):
                base = _joined(base, element.get(BASE, ""))
            yield _joined(base, link.get("href", ""))


def _resolved(links: Iterable[str], url: str) -> list[str]:
    """Whole addresses without fragments, each once."""
    return list(dict.fromkeys(_joined(url, link).partition("#")[0] for link in links if link.strip()))


def _joined(base: str, link: str) -> str:
    """A link as a whole address; what cannot be one stays as it is, for the reader of the page to refuse."""
    try:
        return urljoin(base, link.strip())
    except ValueError:
        return link.strip()
