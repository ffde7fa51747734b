"""Pages from a real server on loopback: the robot's manners, and what may enter the cache."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.corpus.unpacking import opener
from llm_assets.corpus.web import PRODUCT, Fetcher, Manners, Page, UnusablePageError, WebError
from llm_assets_tests.corpus.site import Answer, Site

Fetch = Callable[..., Page]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """One page in a round of its own; pages are asked about every time."""

    def fetch_once(url: str, **manners: float) -> Page:
        with Fetcher(tmp_path / "cache", Manners(**{"delay": 0, "refresh": 0, **manners})) as fetcher:  # type: ignore[arg-type]
            return fetcher.page(url)

    return fetch_once


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept; nobody sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def bodies(tmp_path: Path, url: str) -> list[str]:
    folder = tmp_path / "cache" / "pages" / hashlib.sha256(url.encode()).hexdigest()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_unchanged_page_is_downloaded_once_and_a_changed_one_again(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    url = site.put("/a", "one")
    first = fetch(url)
    assert first.path.read_text() == "one" and first.content_type == "text/html; charset=utf-8"
    assert json.loads((first.path.parent / "page.json").read_text())["url"] == url
    assert fetch(url) == first
    assert "If-None-Match" in site.asked[-1][1] and "If-Modified-Since" in site.asked[-1][1]  # answered with 304
    assert fetch(url, refresh=60) == first and site.paths() == ["/a", "/a"]
    site.put("/a", "two")
    second = fetch(url)
    assert second.sha256 != first.sha256 and bodies(tmp_path, url) == sorted([second.path.name, "page.json"])


def test_a_damaged_body_is_downloaded_again(site: Site, fetch: Fetch) -> None:
    page = fetch(site.put("/a", "one"))
    page.path.write_text("oops")
    assert fetch(page.url, refresh=60).path.read_text() == "one"
    (page.path.parent / "page.json").write_text("{")
    assert fetch(page.url, refresh=60) == page


def test_a_packed_page_keeps_its_packing_and_that_of_the_transfer_goes(site: Site, fetch: Fetch) -> None:
    packed = gzip.compress(b"text")
    site.answers |= {"/a.gz": Answer(packed), "/b": Answer(packed, headers={"Content-Encoding": "gzip"})}
    first, second = fetch(site.url("/a.gz")), fetch(site.url("/b"))
    assert first.path.name == f"{first.sha256}.gz" and first.path.read_bytes() == packed and second.path.read_bytes() == b"text"
    for page in (first, second):
        with opener(page.path)() as stream:
            assert stream.read() == b"text"


def test_robots_are_obeyed_and_the_rule_is_named(site: Site, fetch: Fetch) -> None:
    site.put("/robots.txt", f"User-agent: *\nDisallow: /\n\nUser-agent: {PRODUCT}\nDisallow: /private\nAllow: /private/open", "text/plain")
    assert fetch(site.put("/private/open", "x")).path.read_text() == "x"
    for path in ("/private/a?b", "/public/../private"):
        with pytest.raises(UnusablePageError, match=r"may not be fetched: http://127.*/robots.txt says `Disallow: /private`; leave it out") as caught:
            fetch(site.url(path))
        assert caught.value.rule == "forbidden"
    assert site.paths() == ["/private/open"] and PRODUCT in site.asked[0][1]["User-Agent"]


def test_robots_that_cannot_be_reached_forbid_all(site: Site, fetch: Fetch, waits: list[float]) -> None:
    url = site.put("/a", "x")
    site.answers["/robots.txt"] = Answer(status=503)
    with pytest.raises(UnusablePageError, match=r"may not be fetched while its robots.txt cannot be: .*status 503 3 times") as caught:
        fetch(url)
    assert caught.value.rule == "robots_unreachable" and not site.paths() and [wait for wait in waits if wait] == [1, 2]
    site.answers["/robots.txt"] = Answer(status=403)  # RFC 9309 2.3.1.3
    assert fetch(url).path.read_text() == "x"
    site.answers["/robots.txt"] = Answer(status=503)
    assert fetch(url, refresh=60).path.read_text() == "x"  # nobody is asked


def test_a_host_is_given_time(site: Site, tmp_path: Path, waits: list[float]) -> None:
    urls = [site.put("/a", "x"), site.put("/b", "x")]
    site.put("/robots.txt", "User-agent: *\nCrawl-delay: 5", "text/plain")
    with Fetcher(tmp_path / "cache", Manners(delay=2)) as fetcher:
        for url in urls:
            fetcher.page(url)
    assert waits[0] == 0 and 4 < waits[1] <= 5 and 4 < waits[2] <= 5
    site.put("/robots.txt", "User-agent: *\nCrawl-delay: 500", "text/plain")
    with pytest.raises(WebError, match="asks for 500 seconds between two requests, more than 120"), Fetcher(tmp_path / "new", Manners()) as fetcher:
        fetcher.page(urls[0])


@pytest.mark.parametrize("after", [("7", 7), (email.utils.formatdate(time.time() + 3600, usegmt=True), None), ("soon", 1), ("86400", None)])
def test_a_busy_server_says_when_to_come_again(site: Site, fetch: Fetch, waits: list[float], after: tuple[str, float | None]) -> None:
    value, wait = after
    site.answers["/a"] = [Answer(status=429, headers={"Retry-After": value}), Answer(b"x")]
    if wait is None:
        with pytest.raises(WebError, match=r"/a was answered with status 429, to be asked for again in \d{4,5} seconds: run again then"):
            fetch(site.url("/a"))
    else:
        assert fetch(site.url("/a")).path.read_bytes() == b"x" and wait in waits


def test_a_download_that_ends_early_is_tried_again_and_never_kept(site: Site, fetch: Fetch, waits: list[float], tmp_path: Path) -> None:
    whole, cut = Answer(b"whole"), Answer(b"wh", cut=3)
    site.answers["/a"] = [cut, Answer(status=500), whole]
    assert fetch(site.url("/a")).path.read_bytes() == b"whole"
    site.answers["/b"] = cut
    with pytest.raises(WebError, match=r"/b broke off \(RemoteProtocolError\) 3 times; run again later"):
        fetch(site.url("/b"))
    assert bodies(tmp_path, site.url("/b")) == [] and site.paths() == ["/a"] * 3 + ["/b"] * 3
    site.answers["/a"] = cut
    with pytest.raises(WebError):
        fetch(site.url("/a"))
    assert fetch(site.url("/a"), refresh=60).path.read_bytes() == b"whole"  # the older page stays


def test_a_body_that_cannot_be_unpacked_whole_is_no_page(site: Site, fetch: Fetch, waits: list[float]) -> None:
    packed = gzip.compress(b"text")
    for content, reason in ((packed[:-4], "broke off (EOFError) 3 times"), (packed + b"x", "EOFError"), (b"no gzip", "broke off (error) 3 times")):
        site.answers["/a"] = Answer(content, headers={"Content-Encoding": "gzip"})
        with pytest.raises(WebError, match=re.escape(reason)):
            fetch(site.url("/a"))
    site.answers["/a"] = Answer(packed, headers={"Content-Encoding": "br"})
    with pytest.raises(WebError, match="/a arrives in the coding br, which was not asked for"):
        fetch(site.url("/a"))


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_a_page_that_is_too_large_is_never_kept(site: Site, fetch: Fetch, tmp_path: Path, headers: dict[str, str]) -> None:
    content = b"a" * 100_001
    site.answers["/a"] = Answer(gzip.compress(content) if headers else content, headers=headers)
    with pytest.raises(UnusablePageError, match=r"/a holds more than 100000 bytes \(`maximum_bytes`\)"):
        fetch(site.url("/a"), maximum_bytes=100_000)
    assert bodies(tmp_path, site.url("/a")) == []
    assert fetch(site.url("/a"), maximum_bytes=100_001).path.stat().st_size == 100_001


def test_redirects_are_followed_as_far_as_they_are_allowed(site: Site, fetch: Fetch) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /private", "text/plain")
    site.put("/c", "here")
    for path, target in (
        ("/a", "/b"),
        ("/b", site.url("/c")),
        ("/loop", "/loop"),
        ("/p", "/private"),
        ("/f", "file:///etc/passwd"),
        ("/n", "http://["),
    ):
        site.answers[path] = Answer(status=302, headers={"Location": target})
    page = fetch(site.url("/a"))
    assert page.url == site.url("/a") and page.path.read_text() == "here"
    assert fetch(site.url("/a")) == page and [("If-None-Match" in headers) for path, headers in site.asked[-3:]] == [False, False, True]
    for path, reason in (("/loop", "redirected more than 5 times"), ("/p", "Disallow: /private"), ("/f", "file:///etc/passwd is no http or https")):
        with pytest.raises(WebError, match=reason):
            fetch(site.url(path))
    with pytest.raises(UnusablePageError, match="/n is redirected to what is no address"):
        fetch(site.url("/n"))
    assert "/private" not in site.paths()


@pytest.mark.parametrize(("status", "reason"), [(404, "has gone"), (410, "has gone"), (403, "status 403"), (304, "status 304"), (204, "status 204")])
def test_other_answers_are_no_page(site: Site, fetch: Fetch, status: int, reason: str) -> None:
    site.answers["/a"] = Answer(status=status)
    with pytest.raises(WebError, match=reason):
        fetch(site.url("/a"))


@pytest.mark.parametrize("url", ["ftp://a.example/", "file:///etc/passwd", "/relative", "http://", "http://a\nb/", "http://[::1", "http://a\x00/"])
def test_only_the_web_is_asked(fetch: Fetch, url: str) -> None:
    with pytest.raises(UnusablePageError) as caught:
        fetch(url)
    assert caught.value.rule == "bad_address"


def test_a_site_that_is_not_there_is_named(fetch: Fetch, waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(WebError, match=r"robots.txt broke off \(ConnectError\) 3 times"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a")
