"""Whether anything below a data root still holds a text: every file read, tables by their columns, tokens decoded."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_assets.audit.lineage import Name
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

PIECE = 24  # characters: a page that shows 80 of a text holds at least two whole pieces
BLOCK = 1 << 24  # bytes of a file looked at together; consecutive ones overlap by the longest probe
BLOCKS = 1_000  # blocks of tokens decoded together
IGNORED = (".lock",)


@dataclass(frozen=True)
class Searched:
    """What was looked through."""

    files: int
    bytes: int
    tokens: int
    found: list[str]  # files below the data root that hold a probe
    unread: list[str]  # what could not be looked into, and why


def probes(text: str) -> list[str]:
    """What a text is looked for by: itself, raw and as cleaning leaves it, and its pieces of 24 characters, one after another."""
    found: dict[str, None] = {}
    for version in (text, *clean_texts([text]).texts):
        whole = version.strip()
        found[whole] = None
        starts = [*range(0, len(whole) - PIECE, PIECE), max(len(whole) - PIECE, 0)]
        found |= dict.fromkeys(whole[start : start + PIECE] for start in starts)
    return [probe for probe in found if probe]


def search_artifact(store: Store, name: Name, wanted: Sequence[str]) -> bool:
    """Whether a file of an artifact, a sidecar or a page of it included, holds one of the probes."""
    folder = store.open(*name).directory
    return any(_in_file(path, wanted) for path in sorted(folder.rglob("*")) if path.is_file())


def search(store: Store, wanted: Sequence[str]) -> Searched:
    """Look for probes in every file below the data root and, where it is elsewhere, the store's root."""
    files, size, tokens = 0, 0, 0
    found: list[str] = []
    unread: list[str] = []
    roots = [store.home] if not store.is_local or Path(store.root).is_relative_to(store.home) else [store.home, Path(store.root)]
    for path in (path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in IGNORED):
        files, size = files + 1, size + path.stat().st_size
        if _in_file(path, wanted):
            found.append(str(path.relative_to(store.home) if path.is_relative_to(store.home) else path))
    for name in store.names("tokens"):
        artifact = store.open(*name)
        encoder = artifact.manifest.inputs.get("tokenizer")
        tokenizer = store.find("tokenizer", encoder.fingerprint) if encoder else None
        if tokenizer is None:
            unread.append(f"tokens {artifact.fingerprint}: its tokenizer is gone, so it could not be decoded")
            continue
        count, holds = _in_tokens(artifact, tokenizer, wanted)
        tokens += count
        found += [f"tokens/{artifact.fingerprint}, decoded"] if holds else []
    return Searched(files, size, tokens, found, unread)


def _in_file(path: Path, wanted: Sequence[str]) -> bool:
    return _in_table(path, wanted) if path.suffix == ".parquet" else _in_bytes(path, wanted)


def _in_table(path: Path, wanted: Sequence[str]) -> bool:
    """Whether a text column of a Parquet file holds a probe, a row group at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        for group in range(file.num_row_groups if names else 0):
            table = file.read_row_group(group, columns=names)
            if any(pc.any(pc.match_substring(table[name], probe)).as_py() for name in names for probe in wanted):
                return True
    return False


def _in_bytes(path: Path, wanted: Sequence[str]) -> bool:
    """Whether a file's bytes hold a probe, as UTF-8, as JSON writes it in ASCII, or as HTML escapes it."""
    spelled = {spelling for probe in wanted for spelling in _spellings(probe)}
    longest = max(map(len, spelled), default=0)
    with path.open("rb") as file:
        rest = b""
        while block := file.read(BLOCK):
            content = rest + block
            if any(spelling in content for spelling in spelled):
                return True
            rest = content[-longest:]
    return False


def _spellings(probe: str) -> set[bytes]:
    plain = {probe, html.escape(probe), json.dumps(probe)[1:-1], json.dumps(probe, ensure_ascii=False)[1:-1]}
    return {spelling.encode() for spelling in plain}


def _in_tokens(artifact: Artifact, tokenizer: Artifact, wanted: Sequence[str]) -> tuple[int, bool]:
    """How many tokens were decoded, and whether their text holds a probe; white space, which decoding may put in, is left out on both sides."""
    from llm_assets.links.tokenizer import load
    from llm_assets.links.tokens import packed_blocks

    encoder, blocks = load(tokenizer.directory), packed_blocks(artifact)
    needles = ["".join(probe.split()) for probe in wanted]
    before = ""
    for start in range(0, len(blocks), BLOCKS):
        text = before + "".join(encoder.decode(blocks[start : start + BLOCKS].reshape(-1).tolist(), skip_special_tokens=True).split())
        if any(needle in text for needle in needles):
            return int(blocks.size), True
        before = text[-max(map(len, needles), default=0) :]
    return int(blocks.size), False
