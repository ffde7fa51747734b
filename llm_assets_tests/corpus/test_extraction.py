"""Web archives; HTML and PDF are tested among the formats."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.encodings import stated_encoding
from llm_assets.corpus.extraction import extra, warc_rows
from llm_assets.corpus.reading import read
from llm_assets.corpus.rows import BadRow, Row
from llm_assets_tests.corpus.site import article
from llm_assets_tests.corpus.test_sources import source

pytest.importorskip("warcio")
WORDS = "The quick brown fox jumps over the lazy dog."
PLAIN = ("http://a.example/plain", "200 OK", "text/plain; charset=utf-8", "只有文字".encode(), {})


def warc(*pages: tuple[str, str, str, bytes, dict[str, str]], packed: bool = False) -> bytes:
    """A web archive: a record that describes it, then a request and a response for each page."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    for url, status, kind, content, more in pages:
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.example")], is_http_request=True)
        headers = StatusAndHeaders(status, [("Content-Type", kind), *more.items()], protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(url, "request", http_headers=asked))
        writer.write_record(writer.create_warc_record(url, "response", payload=io.BytesIO(content), http_headers=headers))
    return stream.getvalue()


def parsed(content: bytes, longest: int = 10_000_000) -> list[Row | BadRow]:
    return list(warc_rows(io.BytesIO(content), "auto", longest))


@pytest.mark.parametrize("packed", [False, True])
def test_a_web_archive_gives_a_row_a_page(tmp_path: Path, packed: bool) -> None:
    pytest.importorskip("trafilatura")
    page = article(WORDS).encode()
    chunk = gzip.compress(page)
    coded = (b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk), {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"})
    content = warc(
        ("https://a.example/page", "200 OK", "text/html", page, {}), ("https://a.example/coded", "200 OK", "text/html", *coded),
        PLAIN, ("http://a.example/old", "200 OK", "text/plain; charset=ISO-8859-1", "déjà vu".encode("latin-1"), {}),
        ("http://a.example/gone", "404 Not Found", "text/html", page, {}), ("http://a.example/p.png", "200 OK", "image/png", b"x", {}),
        ("http://a.example/none", "200 OK", "text/html", b"", {}), ("dns:a.example", "200 OK", "text/plain", b"x", {}), packed=packed,
    )  # fmt: skip
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    path.write_bytes(content)
    (piece,) = read(source(kind="files", path=str(path), on_error="reject"), tmp_path)
    rows = piece.documents.to_pylist()
    assert [(row["line"], row["id"].rpartition("/")[2]) for row in rows] == [(3, "page"), (5, "coded"), (7, "plain"), (9, "old")]
    assert WORDS in rows[0]["text"] and "About" not in rows[0]["text"] and rows[1]["text"] == rows[0]["text"]
    assert [row["text"] for row in rows[2:]] == ["只有文字", "déjà vu"]
    assert [(row["line"], row["rule"], row["evidence"]) for row in piece.rejects.to_pylist()] == [
        (15, "missing_text", "no text was found in record 15")
    ]
    assert piece.encoding is None


def test_a_record_that_is_too_long_or_packed_unknowably_is_a_bad_row() -> None:
    other = (PLAIN[0], "200 OK", "text/plain", b"x", {"Content-Encoding": "middle-out"})
    zeros = (PLAIN[0], "200 OK", "text/plain", gzip.compress(b"a" * 10_000_000), {"Content-Encoding": "gzip"})
    assert [(row.line, row.rule) for row in parsed(warc(other, zeros, PLAIN), 1000) if isinstance(row, BadRow)] == [
        (3, "undecodable"), (5, "line_too_long"),
    ]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_a_web_archive_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path: Path, packed: bool) -> None:
    content = warc(PLAIN, PLAIN, packed=packed)
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    whole = 0
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        try:
            list(read(source(kind="files", path=str(path)), tmp_path))
            whole += 1
        except SourceError as error:
            assert any(reason in str(error) for reason in ("is cut off", "no whole WARC file", "damaged or cut off")), error
    assert whole <= (4 if packed else 5 * 5)  # only where a record ends: before, in or after the two blank lines


@pytest.mark.parametrize(
    "content", [b"<html>no archive</html>", b"\x00" * 100, b"WARC/1.0\r\n\r\n", b"filedesc://a 0.0.0.0 1 text/plain 3\n1 0 a\nb\n\nabc\n"]
)
def test_what_is_no_web_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no whole WARC file: what should be record 1 is none"):
        parsed(content)


@pytest.mark.parametrize(("more", "reason"), [
    ("也", "no whole WARC file: record 3 is not as long as it states"), ("", "no whole WARC file: what should be record 4 is none"),
])  # fmt: skip
def test_a_record_of_a_wrong_length_is_refused(more: str, reason: str) -> None:
    text = PLAIN[3].decode()
    with pytest.raises(ValueError, match=reason):
        parsed(warc(PLAIN, PLAIN).replace(text.encode(), (text[: len(text) if more else 2] + more).encode(), 1))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000), st.booleans())
def test_no_bytes_crash_the_reader(content: bytes, place: int, packed: bool) -> None:
    archive = warc(PLAIN, packed=packed)
    for damaged in (content, archive[:place] + content + archive[place + len(content) :]):
        try:
            assert all(isinstance(row, Row | BadRow) for row in parsed(damaged))
        except ValueError:
            continue


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)
    with pytest.raises(ValueError, match=r"warc files need the package warcio: pip install 'llm-assets\[warc\]'"):
        extra("warcio.archiveiterator", "warc")


@pytest.mark.parametrize(("content_type", "encoding"), [
    ("text/html; charset=ISO-8859-1", "iso-8859-1"), ('text/html;charset="GB2312"', "gb2312"), ("text/html", None), ("", None),
    *((f"text/html; charset={odd}", None) for odd in ("martian", "zip", "a\x00", "undefined")),
])  # fmt: skip
def test_a_server_states_the_encoding_as_it_may(content_type: str, encoding: str | None) -> None:
    assert stated_encoding(content_type) == encoding
