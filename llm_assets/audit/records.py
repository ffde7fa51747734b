"""What the service, its tools and abandoned work wrote of an erased text, taken out where it stands.

A record keeps its id, time, release, label and figures, so that counts hold; its text is gone, and where its hash stood a
salted one does, so that equal texts still count as one. What is not a record of one text, such as a page, a log of a process
or work that nobody goes on with, goes as a whole. A record is taken for one of the text where it holds a probe of it.

Not touched: journals, whose entries the ledger seals; the inbox, which is its owner's; trained models, which stay until their
releases are retired. The search that follows finds them and says so.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llm_assets.audit.needles import Needles
from llm_assets.audit.search import SQLITE, holds, text_columns
from llm_assets.corpus.batches import write_batch
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.serving.dated_files import rewrite
from llm_assets.serving.recorder import settle
from llm_assets.serving.request_log import log_folder
from llm_assets.store.files import write_json
from llm_assets.store.journal import now
from llm_assets.store.store import Store

MARK = "[ERASED]"  # stands where a text stood
PATIENCE = 60.0  # seconds to wait for whoever works on the same file
PAGE = f"<!doctype html><meta charset=utf-8><title>erased</title><p>{MARK} This page showed a text that was erased.\n"


@dataclass
class Cleaning:
    """What was taken out of where, and where that failed."""

    store: Store
    needles: Needles
    stones: Tombstones
    cleaned: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # SHA-256 of a text whose record was erased -> the salted one

    def salted(self, value: str) -> str:
        """The salted hash in place of a text's own."""
        return self.hashes.setdefault(value, self.stones.hash(value))

    def holds(self, value: Any) -> bool:
        """Whether a value of a record holds a probe."""
        return self.needles.stand_in(json.dumps(value, ensure_ascii=False).encode())

    def without(self, value: Any) -> tuple[Any, int]:
        """A JSON value with ``MARK`` for each string that holds a probe, and how many those were; JSON in a string is looked into."""
        if isinstance(value, dict):
            pairs = [(self.without(key), self.without(one)) for key, one in value.items()]
            return {key: one for (key, _), (one, _) in pairs}, sum(first + second for (_, first), (_, second) in pairs)
        if isinstance(value, list):
            found = [self.without(one) for one in value]
            return [one for one, _ in found], sum(count for _, count in found)
        if not isinstance(value, str) or not self.holds(value):
            return value, 0
        try:
            inner = json.loads(value)
        except ValueError:
            return MARK, 1
        cleaned, count = self.without(inner) if isinstance(inner, (dict, list)) else (MARK, 1)
        return (json.dumps(cleaned) if count and cleaned != MARK else MARK), max(count, 1)


Cleaner = Callable[[Cleaning, Path], int]  # takes the text out of a file or folder; returns how many records it changed
Change = Callable[[Any], tuple[Any, int]]  # a line's value without the text, and of how many texts it was


def clean_records(store: Store, needles: Needles, stones: Tombstones) -> Cleaning:
    """Take out of every record below the data root what the needles find."""
    cleaning = Cleaning(store, needles, stones)
    try:
        cleaning.failed += [f"{path}: requests that wait to be written to the log" for path in settle(log_folder(store.home))]
    except OSError as error:
        cleaning.failed.append(f"requests that wait to be written to the log: {error}")
    for pattern, cleaner, what in CLEANERS:
        for path in sorted(store.home.glob(pattern)):
            try:
                if count := cleaner(cleaning, path):
                    cleaning.cleaned.append(f"{path.relative_to(store.home)}: {count} {what}")
            except FileNotFoundError:
                continue  # it went with its folder, or was a file of a moment
            except (OSError, ValueError, sqlite3.Error, Timeout) as error:
                cleaning.failed.append(f"{path.relative_to(store.home)}: {error}")
    return cleaning


# --- records of the service ------------------------------------------------------------------------------------------


def _log(cleaning: Cleaning, path: Path) -> int:
    """The request log; the gateway may be appending to it."""

    def change(line: Any) -> tuple[Any, int]:
        found = [text for text in line["texts"] if cleaning.holds(text)]
        for text in found:
            text |= {"sha256": cleaning.salted(text["sha256"]), "masked": None, "erased": True}
        return line, len(found)

    return _lines(cleaning, path, change)


def _traffic(cleaning: Cleaning, path: Path) -> int:
    """A day of the request log as a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not holds(path, cleaning.needles):
        return 0
    count, buffer = 0, io.BytesIO()
    with cleaning.store.act_lock(path.parent.name, "traffic").acquire(timeout=PATIENCE):
        with pq.ParquetFile(path) as file, pq.ParquetWriter(buffer, file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group).to_pylist()
                for row in rows:
                    if cleaning.holds([row["masked"], row["sha256"], row.get("answer")]):
                        row |= {"sha256": cleaning.salted(row["sha256"]), "masked": None, **({"answer": None} if "answer" in row else {})}
                        count += 1
                writer.write_table(pa.Table.from_pylist(rows, file.schema_arrow), row_group_size=max(len(rows), 1))
        rewrite(path, lambda _: buffer.getvalue())
    return count


def _batch(cleaning: Cleaning, path: Path) -> int:
    """A batch of labelled texts: the other rows become a new one, and a marker stays in the place of the old."""
    import pyarrow.parquet as pq

    if not holds(path, cleaning.needles):
        return 0
    with cleaning.store.act_lock(path.parent.name, "feedback_batch").acquire(timeout=PATIENCE):
        rows = pq.read_table(path).to_pylist()
        kept = [row for row in rows if not cleaning.holds([row["text"], row["label"], row.get("answered")])]
        if len(kept) == len(rows):
            raise ValueError("it holds the text in none of its rows' texts: look into it by hand")
        again = write_batch(path.parent, kept) if kept else None
        erased = len(rows) - len(kept)
        write_json(path.with_suffix(".erased.json"), {"at": now(), "erased": erased, "kept": len(kept), "replaced_by": again.stem if again else None})
        path.unlink()
    return erased


def _disagreements(cleaning: Cleaning, path: Path) -> int:
    """Texts on which two releases differed, known by their hashes alone."""

    def change(line: Any) -> tuple[Any, int]:
        known = cleaning.hashes.keys() & line["texts"].keys()
        return {**line, "texts": {cleaning.hashes.get(key, key): labels for key, labels in line["texts"].items()}}, len(known)

    with FileLock(f"{path}.lock", timeout=PATIENCE):
        return _lines(cleaning, path, change, Needles(key.encode() for key in cleaning.hashes))


def _journal(cleaning: Cleaning, path: Path) -> int:
    """A journal of the service, which no ledger seals."""
    with FileLock(f"{path}.lock", timeout=PATIENCE):
        return _lines(cleaning, path, cleaning.without)


def _values(cleaning: Cleaning, path: Path) -> int:
    """Lines of JSON, whatever they say."""
    return _lines(cleaning, path, cleaning.without)


def _lines(cleaning: Cleaning, path: Path, change: Change, needles: Needles | None = None) -> int:
    """Change every line that holds a needle; of a line that is no JSON nothing stays. Raises ``OSError``."""
    count = 0
    sought = needles or cleaning.needles

    def changed(content: bytes) -> bytes:
        nonlocal count
        pieces, end = [], 0
        for start in sorted({content.rfind(b"\n", 0, place) + 1 for place, _ in sought.matches(content)}):
            pieces.append(content[end:start])
            end = content.find(b"\n", start)
            end = len(content) if end < 0 else end
            line, taken = _line(content[start:end])
            pieces.append(line)
            count += taken
        return b"".join([*pieces, content[end:]])

    def _line(line: bytes) -> tuple[bytes, int]:
        try:
            value, taken = change(json.loads(line))
            if not taken:  # it stands where no text of this kind of record does
                value, taken = cleaning.without(value)
        except (ValueError, KeyError, TypeError, AttributeError):
            value, taken = {"erased": True}, 1
        return (json.dumps(value, ensure_ascii=False).encode(), taken) if taken else (line, 0)

    if sought.stand_in(path.read_bytes()):
        rewrite(path, changed)
    return count


# --- what tools wrote, and what nobody goes on with ------------------------------------------------------------------


def _file(cleaning: Cleaning, path: Path) -> int:
    """A report, a log of a process or a database, each in its own way; of anything else nothing stays but the mark."""
    if not path.is_file() or path.suffix == ".lock" or not holds(path, cleaning.needles):
        return 0
    with path.open("rb") as file:
        if file.read(len(SQLITE)) == SQLITE:
            return _database(cleaning, path)
    if path.suffix == ".jsonl":
        return _values(cleaning, path)
    if path.suffix == ".json":
        value, count = cleaning.without(json.loads(path.read_bytes()))
        rewrite(path, lambda _: (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())
        return count
    rewrite(path, lambda _: (PAGE if path.suffix == ".html" else f"{MARK}\n").encode())
    return 1


def _pages(cleaning: Cleaning, folder: Path) -> int:
    """Pages of an audit, whose questions can be asked again; the name of one may be a document's own hash, so it goes, too."""
    held = [path for path in sorted(folder.iterdir()) if holds(path, cleaning.needles)]
    for path in held:
        path.unlink()
    return len(held)


def _database(cleaning: Cleaning, path: Path) -> int:
    """A SQLite database: cells that hold the text change, and what its pages still held of older ones is overwritten."""
    count = 0
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as database:
        database.execute("pragma secure_delete = on")
        for table, column in text_columns(database):
            cells = database.execute(f"select distinct {column} from {table} where typeof({column}) in ('text', 'blob')")
            held = [cell for (cell,) in cells if cleaning.needles.stand_in(cell if isinstance(cell, bytes) else cell.encode())]
            for cell in held:
                database.execute(f"update {table} set {column} = ? where {column} = ?", (_cell(cleaning, cell), cell))
            count += len(held)
        database.execute("vacuum")
        database.execute("pragma wal_checkpoint(truncate)")
    return max(count, 1)  # it may have stood in a free page alone


def _cell(cleaning: Cleaning, cell: str | bytes) -> str | bytes:
    if isinstance(cell, bytes):
        return MARK.encode()
    cleaned, _ = cleaning.without(cell)
    return str(cleaned) if not cleaning.holds(cleaned) else MARK


def _work(cleaning: Cleaning, folder: Path) -> int:
    """Work in progress, unless somebody is at it."""
    if not (folder / "recipe.json").is_file() or not _held_in(cleaning, folder):
        return 0
    with cleaning.store.lock(folder.name).acquire(timeout=0):
        shutil.rmtree(folder)
    return 1


def _folder(cleaning: Cleaning, folder: Path) -> int:
    """A copy that can be had again, or that nobody needs."""
    if not folder.is_dir() or not _held_in(cleaning, folder):
        return 0
    shutil.rmtree(folder)
    return 1


def _held_in(cleaning: Cleaning, folder: Path) -> bool:
    return any(holds(path, cleaning.needles) for path in sorted(folder.rglob("*")) if path.is_file())


CLEANERS: tuple[tuple[str, Cleaner, str], ...] = (  # in this order: what a log held tells whose hashes go
    ("serving/log/*/*.jsonl", _log, "texts"),
    ("serving/traffic/*/*.parquet", _traffic, "rows"),
    ("serving/disagreements/*.jsonl", _disagreements, "hashes"),
    ("serving/feedback/*/*.jsonl", _values, "values"),
    ("feedback/*/*.parquet", _batch, "rows"),
    ("feedback/*/withdrawn.jsonl", _journal, "values"),
    ("serving/events/*.jsonl", _journal, "values"),
    ("serving/annotation/*.jsonl", _journal, "values"),
    ("acts/**/*", _file, "values"),
    ("trials/*", _file, "values"),
    ("logs/*", _file, "values"),
    ("dagster/**/*", _file, "values"),
    ("mlflow/**/*", _file, "values"),
    ("audit/*.db", _file, "values"),
    ("audit/pages", _pages, "pages"),
    ("work/progress/*.jsonl", _file, "values"),
    ("work/*", _work, "folder of abandoned work"),
    ("quarantine/*", _folder, "folder"),
    ("cache/*/*/*", _folder, "folder"),
)
