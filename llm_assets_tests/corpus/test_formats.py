"""Every file format gives the same rows, and every kind of damage is a clear error or a counted reject."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.encodings import detect_encoding
from llm_assets.corpus.formats import Columns, Format, MissingColumnsError, rows
from llm_assets.corpus.reading import read
from llm_assets.corpus.rows import BadRow, Row
from llm_assets_tests.corpus.test_sources import ROWS, source

COLUMNS = Columns(label="label", id="id")
GOOD = [Row(1, "很好", "positive", "1"), Row(2, "很差\n真的", "negative", "2")]
LONGEST = 10_000_000


def parsed(content: bytes, form: Format, columns: Columns = COLUMNS, encoding: str = "utf-8-sig", longest: int = LONGEST) -> list[Row | BadRow]:
    return list(rows(lambda: io.BytesIO(content), form, columns, encoding, longest))


def delimited(delimiter: str, values: list[dict[str, Any]] = ROWS, encoding: str = "utf-8") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "text", "label"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(values)
    return text.getvalue().encode(encoding)


def xlsx() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label", "id"], *([row["text"], row["label"], row["id"]] for row in ROWS)):
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize(("form", "content"), [
    ("csv", lambda: delimited(",")), ("tsv", lambda: delimited("\t")), ("xlsx", xlsx),
    ("jsonl", lambda: "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
])  # fmt: skip
def test_every_table_gives_the_same_rows(form: Format, content: Callable[[], bytes]) -> None:
    assert [row._replace(line=0) for row in parsed(content(), form)] == [row._replace(line=0) for row in GOOD]


def test_packed_files_and_members_of_a_zip_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n'))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("in/c.txt", "two\nthree\n")
        box.writestr("in/d.csv", "text\nfour\n")
        box.writestr("readme.md", "no documents here")
    found = list(read(source(kind="files", path=str(tmp_path / "*")), tmp_path))
    places = [
        (Path(row["member"]).as_posix().split("/b.zip/")[-1].split("/")[-1], row["text"]) for piece in found for row in piece.documents.to_pylist()
    ]
    assert places == [("a.jsonl.gz", "one"), ("c.txt", "two"), ("c.txt", "three"), ("d.csv", "four")]


def test_a_page_and_a_pdf_are_one_document_each(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    pypdf = pytest.importorskip("pypdf")
    sentence = "The quick brown fox jumps over the lazy dog near the river bank every single morning of the year. "
    page = f"<html><body><nav>Home | About</nav><article><h1>Fox</h1><p>{sentence * 4}</p><p>{sentence * 3}</p></article></body></html>"
    (found,) = parsed(page.encode(), "html")
    assert isinstance(found, Row) and "quick brown fox" in found.text and "About" not in found.text
    empty = io.BytesIO()
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(empty)
    assert parsed(empty.getvalue(), "pdf") == [BadRow(1, "missing_text", "no text was found in this pdf file")]
    with pytest.raises(ValueError, match="no whole PDF"):
        parsed(b"%PDF-1.4 cut off", "pdf")


@pytest.mark.parametrize(("content", "encoding"), [
    ("很好".encode(), "utf-8-sig"), ("\ufeff很好".encode(), "utf-8-sig"), ("很好，宾馆𠮷".encode("gb18030"), "gb18030"),
    (b"\xff\xff", "utf-8-sig"), (b"", "utf-8-sig"),
])  # fmt: skip
def test_the_encoding_is_found_and_stated(tmp_path: Path, content: bytes, encoding: str) -> None:
    assert detect_encoding(lambda: io.BytesIO(content)) == encoding
    (tmp_path / "a.txt").write_bytes(content)
    assert {piece.encoding for piece in read(source(kind="files", path=str(tmp_path / "a.txt"), on_error="reject"), tmp_path)} <= {encoding}


BAD = b"".join([
    b'{"text": "good", "label": "positive"}\n', b'{"text": "\xff"}\n', b'{"text": \n', b"[1]\n", b'{"body": "x"}\n', b'{"text": 3}\n',
    b'{"text": "x", "label": "odd"}\n', b'{"text": "' + b"a" * 3000 + b'"}\n', b'{"text": "last"}\n',
])  # fmt: skip


def test_rows_are_chosen_by_a_column_and_labels_get_names() -> None:
    content = b"text,label,source\ngood,1,imdb\nbad,0,imdb\nelsewhere,1,rt\nneither,2,imdb\n"
    columns = Columns(label="label", label_names={"0": "negative", "1": "positive"}, where={"source": "imdb"})
    found = parsed(content, "csv", columns)
    assert [(row.line, row.text, row.label) for row in found if isinstance(row, Row)] == [
        (2, "good", "positive"), (3, "bad", "negative"), (5, "neither", "2"),
    ]  # fmt: skip
    with pytest.raises(MissingColumnsError, match="has no column site"):
        parsed(content, "csv", Columns(where={"site": "imdb"}))


def test_bad_rows_are_rejected_with_their_rule_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BAD)
    asked = {"kind": "files", "path": str(tmp_path / "a.jsonl"), "columns": {"label": "label"}, "labels": ["positive"], "maximum_line": 2000}
    (piece,) = read(source(**asked, on_error="reject", encoding="utf-8"), tmp_path)
    assert piece.documents["text"].to_pylist() == ["good", "last"]
    assert list(zip(piece.rejects["line"].to_pylist(), piece.rejects["rule"].to_pylist(), strict=True)) == [
        (2, "undecodable"), (3, "malformed"), (4, "malformed"), (5, "missing_text"), (6, "missing_text"), (7, "unknown_label"), (8, "line_too_long"),
    ]  # fmt: skip
    with pytest.raises(SourceError, match=r"source mine: .*a\.jsonl: line 2 is not in utf-8"):
        list(read(source(**asked, encoding="utf-8"), tmp_path))


def test_an_empty_file_holds_no_documents(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv", "a.jsonl"):
        (tmp_path / name).touch()
    assert list(read(source(kind="files", path=str(tmp_path / "*")), tmp_path)) == []


def test_a_line_of_50_megabytes_costs_no_memory_of_its_size(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.write(b"first\n")
        for _ in range(50):
            file.write(b"a" * (1 << 20))
        file.write(b"\nlast\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (piece,) = read(source(kind="files", path=str(tmp_path / "a.txt"), on_error="reject", maximum_line=100_000), tmp_path)
    assert piece.documents["text"].to_pylist() == ["first", "last"] and piece.rejects["rule"].to_pylist() == ["line_too_long"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_decompression_bomb_is_refused_while_it_unpacks(tmp_path: Path) -> None:
    zeros = b"\n" * (80 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(zeros))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("c.txt", zeros)
    for name in ("a.txt.gz", "b.zip"):
        with pytest.raises(SourceError, match="decompression bomb"):
            list(read(source(kind="files", path=str(tmp_path / name)), tmp_path))


def test_columns_may_come_and_go_between_files_but_not_the_named_ones(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,stars\none,5\n")
    (tmp_path / "b.csv").write_text("date,text\n2020,two\n")
    mine = source(kind="files", path=str(tmp_path / "*.csv"))
    assert [text for piece in read(mine, tmp_path) for text in piece.documents["text"].to_pylist()] == ["one", "two"]
    (tmp_path / "c.csv").write_text("body\nthree\n")
    with pytest.raises(SourceError, match=r"c\.csv cannot be read: it has no column text; it has body"):
        list(read(mine, tmp_path))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["lines", "tagged", "jsonl", "csv", "tsv", "parquet"]), st.sampled_from(["utf-8-sig", "gb18030"]))
def test_no_bytes_crash_a_reader(content: bytes, form: Format, encoding: str) -> None:
    try:
        found = parsed(content, form, Columns(), encoding)
    except ValueError:
        return
    assert all(isinstance(row, Row | BadRow) and row.line >= 1 for row in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), max_size=5))
def test_what_is_written_is_read(texts: list[str]) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    assert [row.text for row in parsed(lines, "jsonl", Columns()) if isinstance(row, Row)] == texts
    table = delimited(",", [{"text": text, "label": "x", "id": "1"} for text in texts])
    assert [row.text for row in parsed(table, "csv") if isinstance(row, Row)] == texts
