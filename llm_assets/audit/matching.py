"""What holds a phrase: documents of every raw corpus, and texts that the service recorded.

A text matches where, both normalised as cleaning normalises (NFKC, white space, invisible characters) and compared without
case, it holds the phrase as it stands. Masked texts of the service are compared as they are kept, so a phrase that masking
took out of them is found in documents alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from llm_assets.audit.forget import ForgetError
from llm_assets.audit.index import Index
from llm_assets.corpus import pii
from llm_assets.corpus.batches import batch_files
from llm_assets.corpus.cleaning import normalise_all
from llm_assets.serving.answers import GENERATED
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.feedback import feedback_folder
from llm_assets.serving.recorder import settle
from llm_assets.serving.request_log import log_folder

SHORTEST = 2  # characters: one stands in half of all documents
GROUP = 10_000  # texts normalised together
SAMPLE = 60  # characters of a sample


@dataclass
class Matching:
    """The texts that hold a phrase."""

    documents: dict[str, str] = field(default_factory=dict)  # doc_id -> text
    records: list[str] = field(default_factory=list)  # distinct texts of the service, as it kept them

    def samples(self, count: int) -> Iterator[str]:
        """The beginnings of the first texts, masked."""
        for text in [*self.documents.values(), *self.records][:count]:
            masked = " ".join(pii.mask(text)[0].split())
            yield masked[:SAMPLE] + ("…" if len(masked) > SAMPLE else "")


def matching(index: Index, phrase: str) -> Matching:
    """Every document of a store and every recorded text that holds a phrase; reads all of them. Raises ``ForgetError`` for one that is too short."""
    wanted = normalise_all([phrase])[0].casefold()
    if len(wanted) < SHORTEST:
        raise ForgetError(f"{phrase!r} is too short to say what is meant: give at least {SHORTEST} characters")
    found = Matching()
    for row in (row for row in index.artifacts("raw_corpus") if row.state == "present"):
        for batch in index.store.open(*row.name).batches("documents.parquet", ["doc_id", "text"], GROUP):
            ids, bodies = (batch[name].to_pylist() for name in ("doc_id", "text"))
            found.documents |= {ids[place]: bodies[place] for place in _holding(bodies, wanted)}
    seen: dict[str, None] = {}
    texts = recorded(index.store.home)
    while group := list(islice(texts, GROUP)):
        seen |= dict.fromkeys(group[place] for place in _holding(group, wanted))
    known = set(found.documents.values())
    found.records = [text for text in seen if text not in known]
    return found


def recorded(home: Path) -> Iterator[str]:
    """Every text that the service recorded: of requests, votes, tables of traffic and batches."""
    import pyarrow.parquet as pq

    with suppress(OSError):  # what cannot be asked whether it waits is named when records are cleaned
        settle(log_folder(home))
    for chain in sorted(path.name for folder in (log_folder(home), feedback_folder(home)) for path in folder.glob("*")):
        for path in dated_files(log_folder(home), chain):
            for line in _objects(path):
                texts = line.get("texts")
                yield from (text["masked"] for text in texts or () if isinstance(text, dict) and isinstance(text.get("masked"), str))
        for path in dated_files(feedback_folder(home), chain):
            for line in _objects(path):
                said = (line.get("comment"), line.get("label") if str(line.get("id")).startswith(GENERATED) else None)
                yield from (text for text in said if isinstance(text, str))
    tables: list[tuple[Path, tuple[str, ...]]] = [(path, ("masked", "answer")) for path in sorted(home.glob("serving/traffic/*/*.parquet"))]
    tables += [(path, ("text", "answered", "label")) for folder in sorted(home.glob("feedback/*")) for path in batch_files(folder)]
    for path, columns in tables:
        with pq.ParquetFile(path) as file:
            known = [column for column in columns if column in file.schema_arrow.names]  # older tables lack what a chain that talks needs
            for batch in file.iter_batches(GROUP, columns=known):
                for row in batch.to_pylist():
                    if row.get("answered") is None:
                        row.pop("label", None)  # that of a classifier, which is no text
                    yield from (text for text in row.values() if text)


def _holding(texts: list[str], wanted: str) -> list[int]:
    return [place for place, text in enumerate(normalise_all(texts)) if wanted in text.casefold()]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue  # cut off by a crash
            if isinstance(value, dict):
                yield value
