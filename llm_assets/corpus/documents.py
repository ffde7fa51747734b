"""What a document is: its columns, its identity, and the key under which two spellings of one text meet."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.corpus.codepoints import flatten, hash_texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

DOC_ID_LENGTH = 20  # hexadecimal digits: 80 bits, a collision among 10^9 texts has a chance of 10^-6
COLUMNS = ("doc_id", "id", "text", "language", "source", "license", "member", "line", "label", "metadata")
REJECT_COLUMNS = ("doc_id", "source", "member", "line", "rule", "start", "end", "evidence")
EVIDENCE_LENGTH = 80  # characters of masked text a rejected document may show
SAMPLES = 20  # documents of each rule on a page
ROW_GROUP = 10_000  # rows of a row group, which is also a shard of work: about 2.4 MB of reviews
ROW_GROUP_BYTES = 16 << 20  # or as many rows as fill this, where documents are long

_PUNCTUATION = re.compile(r"[\W_]+")


def document_schema() -> pa.Schema:
    """The Arrow schema of ``documents.parquet``; ``metadata`` is a JSON object in a string, ``line`` counts from 1."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in COLUMNS])


def reject_schema() -> pa.Schema:
    """The Arrow schema of ``rejects.parquet``; ``start`` and ``end`` are character positions in the normalised text."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name in ("line", "start", "end") else pa.string()) for name in REJECT_COLUMNS])


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends tables to a Parquet file, in row groups whose bounds depend on the rows alone.

    So the same rows make the same bytes however they arrive, and memory holds one row group at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting = schema.empty_table()

    def append(table: pa.Table) -> None:
        nonlocal waiting
        waiting = pa.concat_tables([waiting, table.select(schema.names).cast(schema)])
        while (full := _full_group(waiting)) is not None:
            writer.write_table(waiting.slice(0, full).combine_chunks(), row_group_size=full)
            waiting = waiting.slice(full).combine_chunks()

    with pq.ParquetWriter(path, schema) as writer:
        yield append
        if len(waiting):
            writer.write_table(waiting.combine_chunks(), row_group_size=len(waiting))


def _full_group(table: pa.Table) -> int | None:
    """How many of the first rows fill a row group; none while they do not."""
    import numpy as np
    import pyarrow.compute as pc

    if "text" in table.column_names:
        filled = np.cumsum(pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy())
        over = int(np.searchsorted(filled, ROW_GROUP_BYTES)) + 1  # the row that goes past the bound is still in
        if over <= min(len(table), ROW_GROUP):
            return over
    return ROW_GROUP if len(table) >= ROW_GROUP else None


def doc_id(text: str) -> str:
    """The identity of a raw text: the first 20 hexadecimal digits of its SHA-256, so equal text has one doc_id."""
    return hashlib.sha256(text.encode()).hexdigest()[:DOC_ID_LENGTH]


def text_key(text: str) -> str:
    """What is left of a normalised text without punctuation, spaces and case: texts that differ in no more count as duplicates."""
    return _PUNCTUATION.sub("", text.casefold())


def hash_rows(batch: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit hash of what each row has in the columns; 8 bytes a row tell which rows of a corpus repeat each other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = [pc.cast(batch[column], pa.string()) for column in columns]
    return hash_texts(flatten(pc.binary_join_element_wise(*values, "\x1f", null_handling="replace", null_replacement="\x00").to_pylist()))


def repeated_rows(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> NDArray[np.uint64]:
    """The hashes, ascending, of rows that stand more than once in a table; 8 bytes a row are held, and as many to sort them."""
    import numpy as np

    hashes = np.concatenate([np.empty(0, np.uint64), *(hash_rows(batch, columns) for batch in batches)])
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def domains(metadata: Iterable[str]) -> list[str | None]:
    """The ``domain`` that each metadata string names, or None."""
    known: dict[str, str | None] = {}
    return [known[value] if value in known else known.setdefault(value, json.loads(value).get("domain")) for value in metadata]


def rejects(documents: pa.Table, rules: Sequence[str], evidence: Iterable[str]) -> pa.Table:
    """A row of ``rejects.parquet`` for each document: the rule that dropped it, and evidence cut to 80 characters."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {name: documents[name] for name in ("doc_id", "source", "member", "line")}
    return pa.table(
        {
            **columns,
            "rule": pa.array(rules, pa.string()),
            "start": pa.array([0] * len(documents), pa.int64()),
            "end": pc.cast(pc.utf8_length(documents["text"]), pa.int64()),
            "evidence": pa.array([text[:EVIDENCE_LENGTH] for text in evidence], pa.string()),
        },
        schema=reject_schema(),
    )
