"""Where in its tables an artifact holds a document: one small database a content, made when first asked and kept.

A table maps doc_id (10 bytes) to row numbers, in the order of the ids: 10 million documents are 230 MB and take 15 s of one core to write;
a look-up touches a handful of pages, and then reads the one row group that holds the row.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llm_assets.corpus.documents import DOC_ID_LENGTH
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# Of each link, the tables that hold doc_ids: name -> file and column. What clean_corpus gives as evidence is a doc_id, too.
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "raw_corpus": {"documents": ("documents.parquet", "doc_id"), "rejects": ("rejects.parquet", "doc_id")},
    "screened_corpus": {"rejects": ("rejects.parquet", "doc_id")},
    "evaluation_sets": {"evaluation": ("evaluation.parquet", "doc_id"), "members": ("members.parquet", "doc_id")},
    "clean_corpus": {
        "documents": ("documents.parquet", "doc_id"),
        "rejects": ("rejects.parquet", "doc_id"),
        "repeats": ("rejects.parquet", "evidence"),
    },
    "tokens": {"documents": ("documents.parquet", "doc_id")},
    "labelled_examples": {"examples": ("train.parquet", "doc_id"), "suspects": ("suspects.parquet", "doc_id")},
}
VERSION = 1
PIECE = ROWS = 100_000  # rows written at once, and read
BYTES = DOC_ID_LENGTH // 2
DOC_ID = re.compile(rf"[0-9a-f]{{{DOC_ID_LENGTH}}}")


class Content(Protocol):
    """An artifact, or what the index knows of one."""

    @property
    def link(self) -> str:
        """The link that made it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Its name."""
        ...

    @property
    def data_version(self) -> str | None:
        """What its content is known by."""
        ...


class Places:
    """The databases of a home, at ``<home>/audit/documents/<link>-<data version>.db``: artifacts of equal content share one.

    An artifact is opened where its database is made, and where rows are read from it; to learn that it does not hold a
    document takes neither.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.home / "audit" / "documents"

    def known(self, content: Content) -> bool:
        """Whether its database stands: then it can be asked of an artifact that was removed, too."""
        database = _whole(self._path(content))
        if database is not None:
            database.close()
        return database is not None

    def make(self, artifact: Artifact) -> None:
        """Make the database of an artifact where there is none."""
        self._open(artifact).close()

    def blot_out(self, content: Content, doc_id: str) -> None:
        """Take a document out of a database, so that not even its hash stays; the other documents are still found."""
        with closing(sqlite3.connect(self._path(content), isolation_level=None)) as database:
            database.execute("pragma secure_delete = on")
            for table in TABLES[content.link]:
                database.execute(f"delete from {table} where doc = ?", (bytes.fromhex(doc_id),))

    def rows(self, content: Content, table: str, doc_id: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """The rows of one of ``TABLES`` that name a document, in the order in which they stand."""
        numbers = self._numbers(content, table, doc_id)
        return list(_read_rows(self._artifact(content), TABLES[content.link][table][0], numbers, columns)) if numbers else []

    def holds(self, content: Content, table: str, doc_id: str) -> bool:
        """Whether a table names a document."""
        return bool(self._numbers(content, table, doc_id))

    def starting_with(self, content: Content, table: str, beginning: str, limit: int) -> list[str]:
        """The first doc_ids of a table that begin so, in their order."""
        low, high = (bytes.fromhex((beginning + fill * DOC_ID_LENGTH)[:DOC_ID_LENGTH]) for fill in "0f")
        query = f"select distinct doc from {table} where doc between ? and ? order by doc limit ?"
        with closing(self._open(content)) as database:
            return [doc.hex() for (doc,) in database.execute(query, (low, high, limit))]

    def _numbers(self, content: Content, table: str, doc_id: str) -> list[int]:
        with closing(self._open(content)) as database:
            return [row for (row,) in database.execute(f"select row from {table} where doc = ? order by row", (bytes.fromhex(doc_id),))]

    def _open(self, content: Content) -> sqlite3.Connection:
        path = self._path(content)
        if (database := _whole(path)) is not None:
            return database
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            _write(self._artifact(content), Path(scratch) / path.name).replace(path)
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)

    def _path(self, content: Content) -> Path:
        return self.folder / f"{content.link}-{content.data_version}.db"

    def _artifact(self, content: Content) -> Artifact:
        return content if isinstance(content, Artifact) else self.store.open(content.link, content.fingerprint)


def _whole(path: Path) -> sqlite3.Connection | None:
    """The database, or None where there is none, or one of another version or cut off."""
    if not path.is_file():
        return None
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        if database.execute("pragma user_version").fetchone()[0] == VERSION:
            return database
    except sqlite3.DatabaseError:
        pass
    database.close()
    return None


def _write(artifact: Artifact, path: Path) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("pragma journal_mode = off")  # a database cut off while it is made is thrown away
        database.execute("pragma synchronous = off")
        for table, (file, column) in TABLES[artifact.link].items():
            database.execute(f"create table {table} (doc blob, row integer, primary key (doc, row)) without rowid")
            if file not in artifact.manifest.files:
                continue  # conversations have no suspects
            docs, numbers = _sorted_ids(artifact, file, column)
            database.execute("begin")
            for start in range(0, len(docs), PIECE):
                piece = slice(start, start + PIECE)
                pairs = zip(docs[piece].view(f"V{BYTES}").ravel().tolist(), numbers[piece].tolist(), strict=True)
                database.executemany(f"insert into {table} values (?, ?)", pairs)
            database.execute("commit")
        database.execute(f"pragma user_version = {VERSION}")
    return path


def _sorted_ids(artifact: Artifact, file: str, column: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The doc_ids of a column in ascending order, shape [ids, 10], each with its row; what is none, such as an empty cell, is left out."""
    import numpy as np

    docs, numbers, first = [np.empty((0, BYTES), np.uint8)], [np.empty(0, np.int64)], 0
    for batch in artifact.batches(file, [column], ROWS):
        found, rows = _packed(batch[column])
        docs.append(found)
        numbers.append(first + rows)
        first += len(batch)
    every, places = np.concatenate(docs), np.concatenate(numbers)
    order = np.argsort(np.ascontiguousarray(every[:, :8]).view(">u8").ravel(), kind="stable")  # two that agree in 64 bits may stand either way
    return every[order], places[order]


def _packed(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The doc_ids of an array as bytes, shape [ids, 10], and where in it they stand. All digits at once: a loop would take ten times as long."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.fill_null(pc.equal(pc.binary_length(values), DOC_ID_LENGTH), False)
    rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
    digits = np.frombuffer(b"".join(values.filter(fits).cast(pa.binary()).to_pylist()), np.uint8).reshape(-1, DOC_ID_LENGTH)
    value = np.full(256, 255, np.uint8)
    value[list(b"0123456789abcdef")] = np.arange(16)
    nibbles = value[digits]
    is_id = (nibbles < 16).all(axis=1)
    return (nibbles[is_id, ::2] << 4 | nibbles[is_id, 1::2]).astype(np.uint8, copy=False), rows[is_id]


def _read_rows(artifact: Artifact, file: str, numbers: list[int], columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file by number, ascending, in those of the columns that it has; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(artifact.path(file)) as parquet:
        waiting, first = list(numbers), 0
        known = columns and [column for column in columns if column in parquet.schema_arrow.names]
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            inside = [number - first for number in waiting if number < first + count]
            if inside:
                yield from parquet.read_row_group(group, columns=known).take(inside).to_pylist()
                waiting = waiting[len(inside) :]
            if not waiting:
                return
            first += count
