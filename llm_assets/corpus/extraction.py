"""Files that hold whole documents with a frame around them: HTML, PDF and web archives (WARC, ISO 28500)."""

from __future__ import annotations

import importlib
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

from llm_assets.corpus.encodings import AUTO, detect_encoding, stated_encoding
from llm_assets.corpus.rows import BadRow, Row

HTML = ("text/html", "application/xhtml+xml")
PLAIN = "text/plain"
BLOCK = 1 << 16  # bytes a read


def page_rows(stream: IO[bytes], encoding: str) -> Iterator[Row | BadRow]:
    """One document: the text of a page without its frame."""
    yield _row(1, html_text(stream.read(), encoding), "this html file")


def pdf_rows(stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """One document: the text of all pages. Raises ``ValueError`` for what is no whole PDF."""
    pypdf = extra("pypdf", "pdf")
    try:
        text = "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(stream.read())).pages)
    except pypdf.errors.PyPdfError as error:
        raise ValueError(f"it is no whole PDF file ({error})") from error
    yield _row(1, text, "this pdf file")


def warc_rows(stream: IO[bytes], encoding: str, longest: int) -> Iterator[Row | BadRow]:
    """A row for each response record of status 200 that holds HTML or plain text; ``line`` counts all records, ``id`` is the address.

    ``longest`` bounds a record's content in bytes. Raises ``ValueError`` for a file that is damaged, cut off or no WARC.
    """
    for number, record in _records(stream):
        row = _response(number, record, encoding, longest)
        while record.raw_stream.read(BLOCK):
            continue
        if record.raw_stream.limit:
            raise ValueError(f"record {number} is cut off: {record.raw_stream.limit} of its {record.length} bytes are missing")
        if row:
            yield row


def html_text(content: bytes, encoding: str) -> str | None:
    """The main text of a page, without navigation, footers and comments."""
    text: str | None = extra("trafilatura", "html").extract(content.decode(encoding, "replace"), include_comments=False)
    return text


def extra(module: str, extra: str) -> Any:
    """A module of an optional dependency. Raises ``ValueError`` that says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ValueError(f"{extra} files need the package {package}: pip install 'llm-assets[{extra}]'") from error


def _records(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """Every record with its number, its content still to be read."""
    archives = extra("warcio.archiveiterator", "warc")
    records = archives.ArchiveIterator(stream, no_record_parse=True)  # with parsing it takes a record without content for the file's end
    number = 0
    while True:
        number += 1
        try:
            record = next(records, None)
        except (archives.ArchiveLoadFailed, zlib.error) as error:
            raise ValueError(f"it is no whole WARC file: what should be record {number} is none") from error
        if records.err_count:  # warcio goes on after a line that it expected to be blank, one record poorer
            raise ValueError(f"it is no whole WARC file: record {number - 1} is not as long as it states")
        if record is None:
            return
        if record.format != "warc" or not (record.rec_headers.get_header("Content-Length") or "").isdecimal():
            raise ValueError(f"it is no whole WARC file: what should be record {number} is none")
        yield number, record


def _response(number: int, record: Any, encoding: str, longest: int) -> Row | BadRow | None:
    """The row of a record; none where the record holds no page."""
    headers = extra("warcio.statusandheaders", "warc").StatusAndHeadersParser([], verify=False)
    url = record.rec_headers.get_header("WARC-Target-URI") or ""
    if record.rec_type != "response" or not url.startswith(("http:", "https:")):
        return None
    try:
        record.http_headers = headers.parse(record.raw_stream)
    except EOFError:  # no content
        return None
    stated = record.http_headers.get_header("Content-Type", "")
    kind = stated.partition(";")[0].strip().lower()
    if record.http_headers.get_statuscode() != "200" or kind not in (*HTML, PLAIN):
        return None
    coding = record.http_headers.get_header("Content-Encoding", "identity").strip().lower()
    supported = extra("warcio.bufferedreaders", "warc").BufferedReader.get_supported_decompressors()
    if coding not in ("", "identity", *supported):
        return BadRow(number, "undecodable", f"record {number} is packed with a coding that cannot be unpacked here: {coding[:20]}")
    content = record.content_stream().read(longest + 1)
    if len(content) > longest:
        return BadRow(number, "line_too_long", f"record {number} is longer than {longest} bytes (`maximum_line`)")
    if encoding == AUTO:
        encoding = detect_encoding(lambda: io.BytesIO(content), stated_encoding(stated))
    text = html_text(content, encoding) if kind in HTML else content.decode(encoding, "replace")
    return _row(number, text, f"record {number}", url)


def _row(number: int, text: str | None, where: str, own_id: str | None = None) -> Row | BadRow:
    return Row(number, text, id=own_id) if text and text.strip() else BadRow(number, "missing_text", f"no text was found in {where}")
