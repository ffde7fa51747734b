"""Encoding documents and packing them into blocks, at 38 bytes of memory a document and none of its text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.links.link import Bench
from llm_assets.store.artifact import Artifact

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

BATCH = 5_000  # documents encoded at once


@dataclass(frozen=True)
class Encoded:
    """Every document's tokens in a scratch file, in the order of their doc_ids: 38 bytes a document in memory."""

    path: Path
    dtype: np.dtype[Any]
    names: NDArray[np.bytes_]  # doc_ids, ascending
    lengths: NDArray[np.int64]  # tokens
    places: NDArray[np.int64]  # of the first token in the scratch file
    sources: NDArray[np.int16]  # of each document, a place in `known`
    known: tuple[str, ...]  # the sources' names

    def taken(self, order: NDArray[np.int64]) -> Encoded:
        """The documents at these places, one may stand several times."""
        return replace(self, names=self.names[order], lengths=self.lengths[order], places=self.places[order], sources=self.sources[order])

    def by_source(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """The tokens of each source among the documents chosen."""
        import numpy as np

        found = np.bincount(self.sources[chosen], self.lengths[chosen], len(self.known))
        return {name: int(found[place]) for place, name in sorted(enumerate(self.known), key=lambda pair: pair[1])}


@dataclass(frozen=True)
class Packed:
    """Where each document stands in ``tokens.bin``."""

    starts: NDArray[np.int64]  # of its first token
    lengths: NDArray[np.int64]
    blocks: tuple[int, int]  # of training, of validation


def encode(bench: Bench, clean_corpus: Artifact, encoder: Tokenizer) -> Encoded:
    """Encode the documents as they stand in the corpus, a batch at a time, into the scratch folder."""
    import numpy as np

    path, total = bench.scratch / "encoded.bin", clean_corpus.rows("documents.parquet")
    dtype = np.dtype("<u2" if encoder.get_vocab_size() <= 65_535 else "<u4")
    names, lengths, sources, done = [np.empty(0, "S20")], [np.empty(0, np.int64)], [np.empty(0, np.int16)], 0
    known: dict[str, int] = {}
    with path.open("wb") as file:
        for batch, encodings in _encodings(clean_corpus.batches("documents.parquet", ["doc_id", "text", "source"], BATCH), encoder):
            ids = [encoding.ids for encoding in encodings]
            sizes = np.fromiter(map(len, ids), np.int64, len(ids))
            file.write(np.fromiter(chain.from_iterable(ids), dtype, int(sizes.sum())).tobytes())
            names.append(np.array(batch["doc_id"].to_pylist(), "S20"))
            lengths.append(sizes)
            sources.append(np.array([known.setdefault(name, len(known)) for name in batch["source"].to_pylist()], np.int16))
            done += len(ids)
            bench.progress(done, total, "documents")
    every, sizes = np.concatenate(names), np.concatenate(lengths)
    places = np.cumsum(sizes) - sizes
    return Encoded(path, dtype, every, sizes, places, np.concatenate(sources), tuple(known)).taken(np.argsort(every, kind="stable"))


def _encodings(batches: Iterable[pa.RecordBatch], encoder: Tokenizer) -> Iterator[tuple[pa.RecordBatch, list[Any]]]:
    """Each batch with its encodings; the next one is encoded meanwhile, which the library does outside the interpreter's lock."""
    waiting: tuple[pa.RecordBatch, Future[list[Any]]] | None = None
    with ThreadPoolExecutor(1) as ahead:
        for batch in batches:
            coming = batch, ahead.submit(encoder.encode_batch_fast, batch["text"].to_pylist())
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting:
            yield waiting[0], waiting[1].result()


def pack(encoded: Encoded, held_out: NDArray[np.bool_], context: int, padding: int, bench: Bench) -> Packed:
    """Write ``tokens.bin``: training documents one after another, padded to a whole block, then the held-out ones alike."""
    import numpy as np

    starts, size = np.zeros(len(encoded.names), np.int64), encoded.dtype.itemsize
    blocks: list[int] = []
    with encoded.path.open("rb") as source, (bench.directory / "tokens.bin").open("wb") as file:
        for part in (~held_out, held_out):
            places = np.flatnonzero(part)
            lengths = encoded.lengths[places]
            used = int(lengths.sum())
            starts[places] = sum(blocks) * context + np.cumsum(lengths) - lengths
            for first in range(0, len(places), BATCH):
                some = places[first : first + BATCH]
                for place, length in zip((encoded.places[some] * size).tolist(), (encoded.lengths[some] * size).tolist(), strict=True):
                    file.write(os.pread(source.fileno(), length, place))
            blocks.append(-(-used // context))
            file.write(np.full(blocks[-1] * context - used, padding, dtype=encoded.dtype).tobytes())
    encoded.path.unlink()
    return Packed(starts, encoded.lengths, (blocks[0], blocks[1]))
