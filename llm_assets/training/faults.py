"""A training that can only get worse is stopped: what was no number, at which update, on which documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_assets.store.files import write_json
from llm_assets.training.job import FAULT, Examples, Packed, TrainingJob

NAMED = 20  # documents in the message; the file holds all


class DivergedError(FloatingPointError):
    """Loss or gradient is infinite or not a number; weights updated with it would be lost."""


def refuse(job: TrainingJob, what: str, value: float, update: int, rows: Sequence[int]) -> None:
    """Raise ``DivergedError`` where ``value`` is no finite number, after leaving ``FAULT`` for the launcher.

    ``update`` is the one being made, counted from 1; ``rows`` are those of the training data in this process's part of it.
    """
    if math.isfinite(value):
        return
    found = documents(job.objective, rows)
    unit = "blocks" if isinstance(job.objective, Packed) else "examples"
    shown = f"documents {', '.join(found[:NAMED])}" if found else f"{unit} {', '.join(map(str, rows[:NAMED]))}"
    message = f"{what} is {value} at update {update} of {job.steps}, on {shown}{' and more' if max(len(found), len(rows)) > NAMED else ''}"
    write_json(job.scratch / FAULT, {"message": message, "update": update, "rows": list(rows), "documents": found})
    raise DivergedError(message)


def documents(objective: Packed | Examples, rows: Sequence[int]) -> list[str]:
    """The doc_ids behind rows of the training data, ascending; none where the data names none.

    A row is a block of ``tokens.bin``, which ``documents.parquet`` beside it indexes, or a row of the examples' Parquet.
    """
    import pyarrow.parquet

    table = objective.tokens / "documents.parquet" if isinstance(objective, Packed) else objective.train
    if not table.exists() or "doc_id" not in pyarrow.parquet.read_schema(table).names:
        return []
    if isinstance(objective, Packed):
        return _in_blocks(table, set(rows))
    ids: list[str] = pyarrow.parquet.read_table(table, columns=["doc_id"])["doc_id"].take(list(rows)).to_pylist()
    return sorted(set(ids))


def _in_blocks(index: Path, wanted: set[int]) -> list[str]:
    import pyarrow.parquet

    found: set[str] = set()
    for batch in pyarrow.parquet.ParquetFile(index).iter_batches(columns=["doc_id", "block", "blocks"]):
        names: dict[str, list[Any]] = batch.to_pydict()
        for name, first, count in zip(names["doc_id"], names["block"], names["blocks"], strict=True):
            if any(block in wanted for block in range(first, first + count)):
                found.add(name)
    return sorted(found)
