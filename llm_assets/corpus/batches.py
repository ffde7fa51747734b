"""Batches of labelled texts from service: what users corrected and annotators labelled, in immutable files named by their content.

They stand in a folder like an inbox, `feedback/<chain>/` below the data root. Whoever collects them reads what is served, and
the corpus reads the files: so no asset stands on what it brings about, and which batches were learned from is in the recipe.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm_assets.store.files import sha256_file, write_atomic
from llm_assets.store.fingerprint import digest

if TYPE_CHECKING:
    import pyarrow as pa

Provenance = Literal["feedback", "annotation"]
PROVENANCES: tuple[Provenance, ...] = ("feedback", "annotation")
STRINGS = ("doc_id", "id", "at", "text", "label", "provenance")


def batch_folder(home: Path, chain: str) -> Path:
    """Where a chain's batches stand."""
    return home / "feedback" / chain


def schema() -> pa.Schema:
    """The columns of a batch: the answer's ``id`` and ``index``, ``at`` (ISO 8601, UTC), and how many clients or annotators said so."""
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


def observe_batches(folder: Path) -> dict[str, str]:
    """Which batches a folder holds: name to SHA-256."""
    return {path.stem: sha256_file(path) for path in batch_files(folder)}


def read_batches(folder: Path) -> pa.Table:
    """The rows of every batch, oldest first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pa.concat_tables([schema().empty_table(), *(pq.read_table(path, schema=schema()) for path in batch_files(folder))])
    return found.sort_by([("at", "ascending"), ("id", "ascending"), ("index", "ascending")])
