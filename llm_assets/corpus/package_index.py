"""The user's package index, asked the way pip would ask it: same indexes, folders, certificates, proxies, credentials."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

DEFAULT_TIMEOUT = 15.0  # seconds, pip's own default
SECTIONS = ("global", "download", "install", ":env:")  # later ones win, as in pip


@dataclass(frozen=True)
class PipSettings:
    """What pip's configuration files and ``PIP_*`` variables say about where packages come from."""

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificate: str | None = None  # file or folder of certificate authorities
    client_certificate: str | None = None
    proxy: str | None = None
    timeout: float = DEFAULT_TIMEOUT

    @classmethod
    def read(cls) -> PipSettings:
        """The settings in force now, as ``pip config list`` merges them; without pip, those in the environment."""
        listing = subprocess.run((sys.executable, "-m", "pip", "config", "list"), capture_output=True, text=True, check=False)
        return cls.from_values(merge(listing.stdout) if listing.returncode == 0 else from_environment(os.environ))

    @classmethod
    def from_values(cls, values: Mapping[str, str]) -> PipSettings:
        """Settings from pip's option names, such as ``index-url``, to their text."""
        main = () if values.get("no-index", "").lower() in ("1", "true", "yes", "on") else (values.get("index-url") or default_index(),)
        extra = tuple(values.get("extra-index-url", "").split()) if main else ()
        return cls(
            index_urls=main + extra,
            find_links=tuple(values.get("find-links", "").split()),
            trusted_hosts=tuple(values.get("trusted-host", "").split()),
            certificate=values.get("cert"),
            client_certificate=values.get("client-cert"),
            proxy=values.get("proxy"),
            timeout=float(values.get("timeout", values.get("default-timeout", DEFAULT_TIMEOUT))),
        )

    def client(self) -> PyPIClient:
        """An HTTP client with these settings; it reads ``*_proxy``, netrc and the keyring as pip does."""
        import ssl

        from unearth.auth import MultiDomainBasicAuth
        from unearth.fetchers.sync import PyPIClient

        authorities = self.certificate
        folder = authorities is not None and Path(authorities).is_dir()
        context = ssl.create_default_context(cafile=None if folder else authorities, capath=authorities if folder else None)
        client = PyPIClient(
            trusted_hosts=self.trusted_hosts,
            verify=context if authorities else True,
            cert=self.client_certificate,
            proxy=self.proxy,
            timeout=self.timeout,
            follow_redirects=True,
        )
        client.auth = MultiDomainBasicAuth(index_urls=list(self.index_urls))
        return client


def default_index() -> str:
    """The index of whoever configured none: that of `unearth`, which is pip's."""
    from unearth import PackageFinder

    return str(PackageFinder().sources[0]["url"])


def merge(listing: str) -> dict[str, str]:
    """The options in the output of ``pip config list`` (lines ``section.option='value'``), the strongest section's value for each."""
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if not separator or section not in SECTIONS:
            continue
        strength = SECTIONS.index(section)
        if option not in found or strength >= found[option][0]:
            found[option] = strength, str(ast.literal_eval(value))
    return {option: value for option, (_, value) in found.items()}


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's options as its ``PIP_*`` variables give them."""
    return {name[4:].lower().replace("_", "-"): value for name, value in environment.items() if name.startswith("PIP_")}


def links(settings: PipSettings, client: PyPIClient, package: str, version: str) -> Iterator[Link]:
    """Every file of that version which the configured indexes and folders offer, whatever platform it is for.

    An index that does not answer is passed over, since another one may have the file; only when all fail is the last
    failure raised (``httpx2.HTTPError`` or ``OSError``).
    """
    import httpx2
    from unearth import PackageFinder
    from unearth.fetchers import Fetcher

    places: list[dict[str, Any]] = [{"index_urls": [url]} for url in settings.index_urls]
    places += [{"find_links": [place]} for place in settings.find_links if "://" in place or Path(place).exists()]
    failure: Exception | None = None
    answered = False
    for place in places:
        finder = PackageFinder(cast(Fetcher, client), ignore_compatibility=True, **place)
        try:
            found = list(finder.find_matches(f"{package}=={version}", allow_yanked=True, allow_prereleases=True))
        except (httpx2.HTTPError, OSError) as error:
            failure = error
            continue
        answered = True
        yield from (match.link for match in found)
    if failure and not answered:
        raise failure
