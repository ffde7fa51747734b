"""Pages of the web, fetched with a robot's manners and kept, so that what was observed is what is read.

The cache: ``<cache>/pages/<SHA-256 of the URL>/`` holds the newest body under the name of its own SHA-256 (with ``.gz``
where it is packed) and ``page.json``, written last, which names it.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin

from llm_assets.corpus.robots import Robots, parse
from llm_assets.store.files import sha256_file, write_atomic, write_json
from llm_assets.store.journal import now

if TYPE_CHECKING:
    from httpx2 import URL, Response

PRODUCT = "llm-assets"  # the name that a robots.txt may address
USER_AGENT = f"{PRODUCT} (collects text for language models; obeys robots.txt for {PRODUCT})"
TIMEOUT = 30  # seconds without a byte
LONGEST_DOWNLOAD = 600  # seconds for one body, however steadily it trickles
LONGEST_WAIT = 120  # seconds that a server may ask to wait, by Retry-After or Crawl-delay
ATTEMPTS = 3  # a request that breaks off, or is answered with 429 or 5xx, is made again after 1 and 2 seconds or as Retry-After says
REDIRECTS = 5  # followed; as many as RFC 9309 asks for
ROBOTS_AGE = 24 * 3600  # seconds that a robots.txt may be relied on, RFC 9309 2.4
GZIP = b"\x1f\x8b"


class WebError(RuntimeError):
    """A page cannot be had; the message names it."""


class UnusablePageError(WebError):
    """A page that is not to be had, now or by asking again; ``rule`` says why in a word, for counting."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Page(NamedTuple):
    """A page as the cache has it."""

    url: str  # as it was asked for
    sha256: str  # of the body
    content_type: str  # as the server states it, may be empty
    path: Path  # of the body


@dataclass(frozen=True)
class Manners:
    """How sites are asked."""

    delay: float = 1  # seconds between two requests to a host; a larger Crawl-delay wins
    refresh: float = ROBOTS_AGE  # seconds for which a page in the cache is not asked about
    maximum_bytes: int = 50 << 20  # of a body, unpacked from the transfer's coding


def check_address(url: str) -> URL:
    """An absolute http or https address without user name and password. Raises ``UnusablePageError``, which does not repeat these."""
    import httpx2

    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UnusablePageError("bad_address", f"an address cannot be understood ({error})") from None
    if address.userinfo:
        shown = address.copy_with(userinfo=b"")
        raise UnusablePageError("bad_address", f"{shown} is stated with a user name or password, which would stand in every record: leave them out")
    if address.scheme not in ("http", "https") or not address.host:
        raise UnusablePageError("bad_address", f"{url} is no http or https address")
    return address


class Fetcher:
    """Pages through the cache, for one round of questions; closes its connections when left."""

    def __init__(self, cache: Path, manners: Manners) -> None:
        import httpx2

        self._cache, self._manners = cache, manners
        self._client = httpx2.Client(headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"}, timeout=TIMEOUT)
        self._robots: dict[str, Robots | WebError] = {}  # by the address of the robots.txt
        self._asked: dict[str, float] = {}  # when each host was asked last

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def page(self, url: str) -> Page:
        """The page at ``url``: from the cache while it is fresh, else asked about, and downloaded only where it changed.

        Raises ``UnusablePageError`` for a page that robots.txt forbids, that has gone, is too large or no http address, and
        ``WebError`` for one that does not arrive.
        """
        check_address(url)
        return self._page(url, self._manners.refresh)

    def _page(self, url: str, refresh: float, is_robots: bool = False) -> Page:
        folder = self._cache / "pages" / hashlib.sha256(url.encode()).hexdigest()
        stored = _stored(folder)
        if stored and 0 <= _age(stored) < refresh:
            return _page(folder, stored)
        answer = self._follow(url, stored, is_robots)
        if answer.status == 304 and stored:
            entry = {**stored, "fetched": now()}
            write_json(folder / "page.json", entry)
            return _page(folder, entry)
        if answer.status in (404, 410) and not is_robots:
            raise UnusablePageError("gone", f"{url} has gone (status {answer.status}); leave it out, or correct the address")
        if answer.status != 200 and not (is_robots and 400 <= answer.status < 500):  # RFC 9309 2.3.1.3: no rules to be had are no rules
            raise WebError(f"{url} is answered with status {answer.status}; correct the address, or leave the page out")
        return _page(folder, _store(folder, url, answer))

    def _refuse_forbidden(self, url: str) -> None:
        address = check_address(url)
        place = _robots_address(address)
        if place not in self._robots:
            self._robots[place] = self._read_robots(place)
        robots = self._robots[place]
        if isinstance(robots, WebError):
            raise UnusablePageError("robots_unreachable", f"{url} may not be fetched while its robots.txt cannot be: {robots}") from robots
        if rule := robots.forbidding(address.raw_path.decode()):
            raise UnusablePageError("forbidden", f"{url} may not be fetched: {place} says `{rule}`; leave it out, or ask the site's owner")
        if robots.delay > LONGEST_WAIT:
            raise WebError(f"{place} asks for {robots.delay:g} seconds between two requests, more than {LONGEST_WAIT}; leave the site's pages out")

    def _read_robots(self, place: str) -> Robots | WebError:
        """RFC 9309 2.3.1: a robots.txt that cannot be reached forbids all, which its error stands for; none at all forbids nothing."""
        try:
            page = self._page(place, min(self._manners.refresh, ROBOTS_AGE), is_robots=True)
        except WebError as error:
            return error
        return parse(page.path.read_bytes(), PRODUCT)

    def _follow(self, url: str, stored: Mapping[str, Any] | None, is_robots: bool) -> _Answer:
        """The answer at the end of the redirects, where each address is as free or forbidden as a page of its own."""
        address = url
        for _ in range(REDIRECTS + 1):
            if not is_robots:
                self._refuse_forbidden(address)
            answer = self._persist(address, stored if stored and stored["address"] == address else {})
            if answer.location is None:
                return answer
            address = _joined(address, answer.location)
        raise WebError(f"{url} is redirected more than {REDIRECTS} times; correct the address")

    def _persist(self, address: str, stored: Mapping[str, Any]) -> _Answer:
        """One address asked, and again where the connection breaks off or the server is busy or broken."""
        import httpx2

        conditions = {"If-None-Match": stored.get("etag"), "If-Modified-Since": stored.get("last_modified")}
        headers = {name: value for name, value in conditions.items() if value}
        for attempt in range(1, ATTEMPTS + 1):
            wait = float(attempt)
            self._pause(address)
            try:
                with self._client.stream("GET", address, headers=headers) as response:
                    if response.status_code != 429 and response.status_code < 500:
                        return self._answer(address, response)
                    reason = f"was answered with status {response.status_code}"
                    wait = max(wait, _retry_after(response.headers.get("Retry-After", "")))
            except (httpx2.RequestError, zlib.error, EOFError) as error:
                reason = f"broke off ({type(error).__name__})"
            if wait > LONGEST_WAIT:
                raise WebError(f"{address} {reason}, to be asked for again in {wait:.0f} seconds: run again then")
            if attempt < ATTEMPTS:
                time.sleep(wait)
        raise WebError(f"{address} {reason} {ATTEMPTS} times; run again later, or leave the page out")

    def _pause(self, address: str) -> None:
        url = check_address(address)
        robots = self._robots.get(_robots_address(url))
        delay = max(self._manners.delay, robots.delay) if isinstance(robots, Robots) else self._manners.delay
        time.sleep(max(0.0, self._asked.get(url.host, -math.inf) + delay - time.monotonic()))
        self._asked[url.host] = time.monotonic()

    def _answer(self, address: str, response: Response) -> _Answer:
        return _Answer(
            status=response.status_code,
            address=address,
            location=response.headers.get("Location") if response.has_redirect_location else None,
            content=_content(address, response, self._manners.maximum_bytes) if response.status_code == 200 else b"",
            content_type=response.headers.get("Content-Type", ""),
            etag=response.headers.get("ETag"),
            last_modified=response.headers.get("Last-Modified"),
        )


class _Answer(NamedTuple):
    status: int
    address: str  # the one that gave it, at the end of the redirects
    location: str | None  # where a redirect leads
    content: bytes  # of status 200, else none
    content_type: str
    etag: str | None
    last_modified: str | None


def _content(address: str, response: Response, limit: int) -> bytes:
    """The body, unpacked here: the client's own decoders neither stop at a limit nor notice that the end is missing."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise WebError(f"{address} arrives in the coding {coding[:20]}, which was not asked for; leave the page out")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16) if coding == "gzip" else None
    content = bytearray()
    began = time.monotonic()
    for block in response.iter_raw():
        content += unpacking.decompress(block, limit + 1 - len(content)) if unpacking else block
        if len(content) > limit:
            raise UnusablePageError("too_large", f"{address} holds more than {limit} bytes (`maximum_bytes`)")
        if time.monotonic() - began > LONGEST_DOWNLOAD:
            raise WebError(f"{address} did not arrive within {LONGEST_DOWNLOAD} seconds; leave the page out")
    if unpacking and (not unpacking.eof or unpacking.unused_data):
        raise EOFError
    return bytes(content)


def _joined(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise UnusablePageError("bad_address", f"{address} is redirected to what is no address") from error


def _robots_address(url: URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}/robots.txt"


def _retry_after(value: str) -> float:
    """The seconds that a Retry-After header asks for, as a number or a date (RFC 9110 10.2.3); 0 where it says neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return 0


def _stored(folder: Path) -> dict[str, Any] | None:
    """What the cache says of a page, if its body is still what it was."""
    try:
        entry: dict[str, Any] = json.loads((folder / "page.json").read_text(encoding="utf-8"))
        return entry if sha256_file(folder / entry["body"]) == entry["sha256"] else None
    except (OSError, ValueError, LookupError):
        return None


def _store(folder: Path, url: str, answer: _Answer) -> dict[str, Any]:
    sha256 = hashlib.sha256(answer.content).hexdigest()
    body = sha256 + (".gz" if answer.content.startswith(GZIP) else "")  # by this name it is unpacked when read
    write_atomic(folder / body, answer.content)
    entry = {
        "url": url,
        "address": answer.address,
        "etag": answer.etag,
        "last_modified": answer.last_modified,
        "content_type": answer.content_type,
        "sha256": sha256,
        "body": body,
        "fetched": now(),
    }
    write_json(folder / "page.json", entry)
    for path in folder.glob("[!.]*"):
        if path.name not in (body, "page.json"):
            path.unlink(missing_ok=True)  # the body of an earlier version
    return entry


def _age(entry: Mapping[str, Any]) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(entry["fetched"])).total_seconds()


def _page(folder: Path, entry: Mapping[str, Any]) -> Page:
    return Page(entry["url"], entry["sha256"], entry["content_type"], folder / entry["body"])
