"""Batches of labelled texts from service: what users corrected and annotators labelled, in immutable files named by their content.

They stand in a folder like an inbox, `feedback/<chain>/` below the data root. Whoever collects them reads what is served, and
the corpus reads the files: so no asset stands on what it brings about, and which batches were learned from is in the recipe.
Rows that turned out wrong are withdrawn: their files stay as they were, and a journal beside them names the rows that no longer count.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm_assets.corpus.documents import text_key
from llm_assets.store.files import sha256_file, write_atomic
from llm_assets.store.fingerprint import digest
from llm_assets.store.journal import Journal

if TYPE_CHECKING:
    import pyarrow as pa

RowKey = tuple[str, int, str, str]  # an answer's id and index, its label, and when that was given
Provenance = Literal["feedback", "annotation"]
PROVENANCES: tuple[Provenance, ...] = ("feedback", "annotation")
STRINGS = ("doc_id", "id", "at", "text", "label", "answered", "provenance")


def batch_folder(home: Path, chain: str) -> Path:
    """Where a chain's batches stand."""
    return home / "feedback" / chain


def schema() -> pa.Schema:
    """The columns of a batch: the answer's ``id`` and ``index``, ``at`` (ISO 8601, UTC), and how many clients or annotators said so.

    Where a reply was voted on, ``text`` is the conversation before it, a turn a line, ``answered`` that reply, and ``label`` the right one, which
    may be the same; empty where nobody said which would be right. ``answered`` is null where labels are given.
    """
    import pyarrow as pa

    return pa.schema([*((name, pa.string()) for name in STRINGS), ("index", pa.int32()), ("votes", pa.int32())])


def write_batch(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows, at least one, as a batch, in an order of their own; the same rows are the same file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted((dict(row) for row in rows), key=lambda row: (row["at"], row["id"], row["index"]))
    path = folder / f"{digest(ordered)[:24]}.parquet"
    if not path.exists():
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ordered, schema()), buffer)
        write_atomic(path, buffer.getvalue())
    return path


def batch_files(folder: Path) -> list[Path]:
    """The batches of a folder, by name."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def withdrawals(folder: Path) -> Journal:
    """What was withdrawn from a folder's batches, by whom and why (``operation/withdrawal.py``)."""
    return Journal(folder / "withdrawn.jsonl")


def standing_rows(path: Path) -> pa.Table:
    """The rows of a batch that were not withdrawn."""
    return _standing(path, _withdrawn(path.parent))


def observe_batches(folder: Path) -> dict[str, str]:
    """Which batches a folder holds: name to SHA-256; where rows were withdrawn to a hash of that and of them; not one without any row left."""
    gone, found = _withdrawn(folder), {}
    for path in batch_files(folder):
        sha256 = sha256_file(path)
        if not gone:
            found[path.stem] = sha256
            continue
        rows, left = _keys(_read(path)), _keys(_standing(path, gone))
        if left:
            found[path.stem] = sha256 if len(left) == len(rows) else digest([sha256, sorted(set(rows) - set(left))])
    return found


def read_batches(folder: Path) -> pa.Table:
    """The rows of every batch that were not withdrawn, oldest first."""
    import pyarrow as pa

    gone = _withdrawn(folder)
    found = pa.concat_tables([schema().empty_table(), *(_standing(path, gone) for path in batch_files(folder))])
    return found.sort_by([("at", "ascending"), ("id", "ascending"), ("index", "ascending")])


def row_key(row: Mapping[str, Any]) -> RowKey:
    """What a row is known by, in whatever file it stands: erasing another row writes a new one. No reply stands in it."""
    return str(row["id"]), int(row["index"]), verdict(row), str(row["at"])


def verdict(row: Mapping[str, Any]) -> str:
    """What a row says, in a word: its label; of a reply that it is right, wrong, or what was corrected."""
    if row.get("answered") is None:
        return str(row["label"])
    return "wrong" if not row["label"] else "right" if row["label"] == row["answered"] else "corrected"


def subject(text: str, answered: str | None) -> str:
    """What is voted on: a text, whose label is one, or a reply to it, of which there may be several."""
    return text_key(text) if answered is None else f"{text_key(text)}\n{answered}"


def _withdrawn(folder: Path) -> set[RowKey]:
    return {(identity, index, label, at) for entry in withdrawals(folder).entries() for identity, index, label, at in entry["rows"]}


def _read(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path, schema=schema())


def _standing(path: Path, gone: Collection[RowKey]) -> pa.Table:
    import pyarrow as pa

    table = _read(path)
    return table.filter(pa.array([key not in gone for key in _keys(table)], pa.bool_())) if gone else table


def _keys(table: pa.Table) -> list[RowKey]:
    return list(map(row_key, table.select(["id", "index", "label", "answered", "at"]).to_pylist()))
