"""Whether anything below a data root still holds a text: every file read, tables by their columns, databases by their cells, tokens decoded."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llm_assets.audit.lineage import Name
from llm_assets.audit.needles import Needles, spelled
from llm_assets.corpus import pii
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.conversations import Turn, text_of
from llm_assets.corpus.unpacking import opener, zip_members
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 24  # characters: a page that shows 80 of a text holds at least two whole pieces
BLOCK = 1 << 24  # bytes of a file looked at together; consecutive ones overlap by the longest probe
BLOCKS = 1_000  # blocks of tokens decoded together
CELLS = 1_000  # cells of a database looked at together
IGNORED = (".lock",)
PACKED = (".bz2", ".xz", ".zst", ".7z", ".rar")  # nothing here writes these; what one holds cannot be said
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Searched:
    """What was looked through."""

    files: int
    bytes: int
    tokens: int
    places: dict[str, int]  # files by place: a folder of the data root, of the service's one below it
    found: list[str]  # files below the data root that hold a probe
    unread: list[str]  # what could not be looked into, and why


def versions(text: str) -> list[str]:
    """A text as it is written anywhere here: as it came, masked, cleaned, and each as a turn of a conversation, which is one line."""
    found = (text, pii.mask(text)[0], *clean_texts([text]).texts)
    return list(dict.fromkeys((*found, *(line for one in found if (line := text_of([Turn("user", one)]))))))


def probes(text: str) -> list[str]:
    """What a text is looked for by: each of its versions, whole and in pieces of 24 characters, one after another."""
    found: dict[str, None] = {}
    for version in versions(text):
        whole = version.strip()
        found[whole] = None
        starts = [*range(0, len(whole) - PIECE, PIECE), max(len(whole) - PIECE, 0)]
        found |= dict.fromkeys(whole[start : start + PIECE] for start in starts)
    return [probe for probe in found if probe]


def hashes(text: str) -> list[str]:
    """The SHA-256 of each version of a text, by which the service knows it: of a short text it gives the text away."""
    return [hashlib.sha256(version.encode()).hexdigest() for version in versions(text)]


def search_artifact(store: Store, name: Name, wanted: Sequence[str]) -> bool:
    """Whether a file of an artifact, a sidecar or a page of it included, holds one of the probes, or its tokens do."""
    artifact, needles = store.open(*name), spelled(wanted)
    if any(holds(path, needles) for path in sorted(artifact.directory.rglob("*")) if path.is_file()):
        return True
    with suppress(ArtifactError):  # tokens that cannot be decoded: the search that follows says so
        return name[0] == "tokens" and _in_tokens(store, artifact, wanted)[1]
    return False


def search(stores: Sequence[Store], wanted: Sequence[str]) -> Searched:
    """Look for probes in every file below the data root and, where it is elsewhere, in each store's root."""
    needles, places, size = spelled(wanted), Counter[str](), 0
    found: list[str] = []
    unread: list[str] = []
    for shown, here in _files(stores):
        places[_place(shown)] += 1
        try:
            with here as path:
                size += path.stat().st_size
                found += [shown] if holds(path, needles) else []
        except FileNotFoundError:
            continue  # a file of a moment
        except (OSError, ValueError, sqlite3.Error) as error:
            unread.append(f"{shown}: {error}")
    tokens = 0
    for store in stores:
        for name in store.names("tokens"):
            try:
                count, holding = _in_tokens(store, store.open(*name), wanted)
            except ArtifactError as error:
                unread.append(f"tokens {name[1]}, whose tokens could not be decoded: {error}")
                continue
            tokens += count
            found += [f"tokens/{name[1]}, decoded"] if holding else []
    return Searched(sum(places.values()), size, tokens, dict(sorted(places.items())), found, unread)


@contextmanager
def _fetched(store: Store, remote: str) -> Iterator[Path]:
    """A file of a remote root, for the time it is looked into."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / remote.rpartition("/")[2]
        store.filesystem.get_file(remote, str(path))
        yield path


def _files(stores: Sequence[Store]) -> Iterator[tuple[str, AbstractContextManager[Path]]]:
    """Every file, by the name it is shown under, and how to have it."""
    home = stores[0].home
    elsewhere = [Path(store.root) for store in stores if store.is_local and not Path(store.root).is_relative_to(home)]
    for root in (home, *elsewhere):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in IGNORED:
                yield str(path.relative_to(home) if root == home else path), nullcontext(path)
    for store in stores:
        for remote in () if store.is_local else sorted(store.filesystem.find(store.root)):
            yield store.filesystem.unstrip_protocol(remote), _fetched(store, remote)


def _place(shown: str) -> str:
    parts = shown.split("/")
    return "/".join(parts[:2] if parts[0] == "serving" and len(parts) > 2 else parts[:1]) or "/"


def holds(path: Path, needles: Needles) -> bool:
    """Whether a file holds one of the needles. Raises ``OSError`` or ``ValueError`` for one that cannot be looked into."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        raise ValueError("it is packed in a way that nobody here unpacks: look into it by hand")
    if suffix == ".parquet":
        return any(needles.stand_in(content) for content in _columns(path))
    if suffix in (".zip", ".npz"):
        return any(_in_stream(member(), needles) for _, member in zip_members(path, str))
    if _in_stream(opener(path)(), needles):
        return True
    with path.open("rb") as file:
        is_database = file.read(len(SQLITE)) == SQLITE
    return is_database and any(needles.stand_in(content) for content in _cells(path))


def _in_stream(stream: IO[bytes], needles: Needles) -> bool:
    with stream:
        rest = b""
        while block := stream.read(BLOCK):
            content = rest + block
            if needles.stand_in(content):
                return True
            rest = content[-needles.longest :] if needles.longest else b""
    return False


def _columns(path: Path) -> Iterator[bytes]:
    """The texts of each column of a Parquet file, a row group at a time, with zero bytes between them."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for column in file.read_row_group(group).itercolumns():
                yield from _texts(column)


def _texts(column: pa.ChunkedArray) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(column.cast(kind.value_type))
    elif pa.types.is_nested(kind):
        for chunk in column.chunks:
            parts = chunk.flatten()
            for part in parts if isinstance(parts, list) else [parts]:
                yield from _texts(pa.chunked_array([part]))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = pc.drop_null(column).to_pylist()
        yield b"\0".join(value if isinstance(value, bytes) else value.encode() for value in values)


def _cells(path: Path) -> Iterator[bytes]:
    """The cells of a SQLite database that hold text: a long one is scattered over the file, where no search of bytes finds it."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        for table, column in text_columns(database):
            rows = database.execute(f"select {column} from {table} where typeof({column}) in ('text', 'blob')")
            while batch := rows.fetchmany(CELLS):
                yield b"\0".join(cell for (cell,) in batch)


def text_columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Table and column, quoted, of every column of a database that may hold text; any may, SQLite's types being advice."""
    tables = database.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'").fetchall()
    for (table,) in tables:
        quoted = _quoted(table)
        yield from ((quoted, _quoted(column[1])) for column in database.execute(f"pragma table_info({quoted})").fetchall())


def _quoted(name: str | bytes) -> str:
    plain = name.decode() if isinstance(name, bytes) else name
    return '"' + plain.replace('"', '""') + '"'


def _in_tokens(store: Store, tokens: Artifact, wanted: Iterable[str]) -> tuple[int, bool]:
    """How many tokens were decoded, and whether their text holds a probe; white space, which decoding may put in, is left out on both sides."""
    from llm_assets.links.tokenizer import load
    from llm_assets.links.tokens import packed_blocks

    entry = tokens.manifest.inputs.get("tokenizer")
    tokenizer = store.find("tokenizer", entry.fingerprint) if entry else None
    if tokenizer is None:
        raise ArtifactError("its tokenizer is gone")
    encoder, blocks = load(tokenizer.directory), packed_blocks(tokens)
    needles = Needles("".join(probe.split()).encode() for probe in wanted)
    before = ""
    for start in range(0, len(blocks), BLOCKS):
        text = before + "".join(encoder.decode(blocks[start : start + BLOCKS].reshape(-1).tolist(), skip_special_tokens=True).split())
        if needles.stand_in(text.encode()):
            return int(blocks.size), True
        before = text[-needles.longest :] if needles.longest else ""
    return int(blocks.size), False
