"""The link tokens: the clean corpus as packed blocks of numbers, ready to be mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.links.tokenizer import load
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 2_000  # documents encoded at once


class TokensConfig(Section):
    """How the text is packed."""

    context: int = Field(128, ge=8, description="tokens a block, the length the model is trained on")
    validation_share: float = Field(0.02, gt=0, lt=0.5, description="of the documents, picked by hash, for the validation loss of pretraining")


def tokens(bench: Bench, config: TokensConfig, clean_corpus: Artifact, tokenizer: Artifact) -> Made:
    """Encodes the clean corpus and packs it into blocks of `context` tokens without waste.

    Each document starts with [CLS] and ends with [SEP]; documents follow each other in the order of their doc_ids, which
    mixes the sources, and may run on into the next block. Training blocks come first, then validation blocks; only the
    last block of each part is padded. `documents.parquet` leads from a doc_id to its blocks, and so from a block back to
    the documents in it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = clean_corpus.table("documents.parquet", ["doc_id", "text"]).sort_by("doc_id")
    encoder = load(tokenizer.directory)
    size = encoder.get_vocab_size()
    dtype = np.dtype("<u2" if size <= 65_535 else "<u4")
    padding = encoder.token_to_id("[PAD]")
    doc_ids, texts = documents["doc_id"].to_pylist(), documents["text"].to_pylist()
    held_out = np.array([is_validation(doc_id, config.validation_share) for doc_id in doc_ids], dtype=bool)
    encoded: list[NDArray[np.unsignedinteger[Any]]] = []
    for start in range(0, len(texts), BATCH):
        encoded += [np.array(encoding.ids, dtype=dtype) for encoding in encoder.encode_batch_fast(texts[start : start + BATCH])]
        bench.progress(len(encoded), len(texts), "documents")
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)

    starts = np.zeros(len(encoded), dtype=np.int64)  # place of each document's first token in the whole file
    blocks: list[int] = []
    with (bench.directory / "tokens.bin").open("wb") as file:
        for part in (~held_out, held_out):
            places = np.flatnonzero(part)
            base = sum(blocks) * config.context
            starts[places] = base + np.cumsum(lengths[places]) - lengths[places]
            used = int(lengths[places].sum())
            blocks.append(-(-used // config.context))
            for place in places:
                file.write(encoded[place].tobytes())
            file.write(np.full(blocks[-1] * config.context - used, padding, dtype=dtype).tobytes())
    first = starts // config.context
    index = {
        "doc_id": pa.array(doc_ids, pa.string()),
        "block": pa.array(first),
        "offset": pa.array(starts % config.context),
        "length": pa.array(lengths),
        "blocks": pa.array((starts + lengths - 1) // config.context - first + 1),
    }
    pq.write_table(pa.table(index), bench.directory / "documents.parquet")
    layout = {
        "dtype": f"uint{dtype.itemsize * 8}",
        "context": config.context,
        "blocks": sum(blocks),
        "train_blocks": blocks[0],
        "validation_blocks": blocks[1],
        "padding_tokens": int(sum(blocks) * config.context - lengths.sum()),
        "vocabulary_size": size,
    }
    write_json(bench.directory / "layout.json", layout)
    histogram(bench.directory, "lengths", lengths.tolist(), "Length of the documents", "tokens")
    bars(bench.directory, "blocks", {"train": blocks[0], "validation": blocks[1]}, "Blocks", f"blocks of {config.context} tokens")
    return Made(metrics={**layout, "tokens": int(lengths.sum()), "documents": len(doc_ids), "validation_documents": int(held_out.sum())})


def is_validation(doc_id: str, share: float) -> bool:
    """Whether the document is held out: by its own hash, so that it stays held out whatever else the corpus holds."""
    return int.from_bytes(hashlib.sha256(f"validation:{doc_id}".encode()).digest()[:8]) / 2**64 < share


def _matrix(artifact: Artifact) -> NDArray[np.unsignedinteger[Any]]:
    """The tokens mapped into memory, shape [blocks, context]. Raises ``ValueError`` when the file has another size."""
    import numpy as np

    layout = artifact.json("layout.json")
    dtype = np.dtype(layout["dtype"]).newbyteorder("<")
    return np.memmap(artifact.path("tokens.bin"), dtype=dtype, mode="r").reshape(layout["blocks"], layout["context"])


def _layout_holds(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    layout = artifact.json("layout.json")
    size = artifact.path("tokens.bin").stat().st_size
    expected = layout["blocks"] * layout["context"] * np.dtype(layout["dtype"]).itemsize
    parts = layout["train_blocks"] + layout["validation_blocks"]
    whole = size == expected and parts == layout["blocks"]
    largest = int(_matrix(artifact).max()) if whole and size else -1
    return Verdict(
        check="layout_holds",
        passed=whole and 0 <= largest < layout["vocabulary_size"] and min(layout["train_blocks"], layout["validation_blocks"]) > 0,
        description=f"{layout['train_blocks']} + {layout['validation_blocks']} blocks of {layout['context']}: {size} bytes, {expected} expected; "
        f"largest token {largest} of {layout['vocabulary_size']}; both parts must hold blocks",
    )


def _index_holds(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    layout, index = artifact.json("layout.json"), artifact.table("documents.parquet")
    stream = _matrix(artifact).reshape(-1)
    encoder = load(inputs["tokenizer"].directory)
    opening, closing = encoder.token_to_id("[CLS]"), encoder.token_to_id("[SEP]")
    starts = index["block"].to_numpy() * layout["context"] + index["offset"].to_numpy()
    ends = starts + index["length"].to_numpy() - 1
    inside = len(ends) > 0 and int(ends.max()) < len(stream)
    framed = inside and bool(np.all(stream[starts] == opening) and np.all(stream[ends] == closing))
    clean = inputs["clean_corpus"].table("documents.parquet", ["doc_id", "text"])
    missing = len(set(clean["doc_id"].to_pylist()) ^ set(index["doc_id"].to_pylist()))
    texts = dict(zip(clean["doc_id"].to_pylist(), clean["text"].to_pylist(), strict=True))
    sample = range(0, len(index), max(1, len(index) // 50))
    wrong = [
        index["doc_id"][place].as_py()
        for place in sample
        if framed and encoder.encode(texts.get(index["doc_id"][place].as_py(), "")).ids != stream[starts[place] : ends[place] + 1].tolist()
    ]
    return Verdict(
        check="index_holds",
        passed=framed and not missing and not wrong,
        description=f"{len(index)} documents, {missing} missing or foreign; {'all' if framed else 'not all'} framed by [CLS] and [SEP]; "
        f"{len(wrong)} of {len(sample)} looked up are not their document's tokens",
        values={"doc_ids": wrong[:10]},
    )


def _parts_disjoint(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    layout, index = artifact.json("layout.json"), artifact.table("documents.parquet")
    share = artifact.manifest.recipe["config"]["validation_share"]
    wrong = [
        doc_id
        for doc_id, block, blocks in zip(index["doc_id"].to_pylist(), index["block"].to_pylist(), index["blocks"].to_pylist(), strict=True)
        if (block >= layout["train_blocks"]) != is_validation(doc_id, share) or (block < layout["train_blocks"] < block + blocks)
    ]
    return Verdict(
        check="validation_held_out",
        passed=not wrong,
        description=f"{len(wrong)} of {len(index)} documents stand in the part they do not belong to",
        values={"doc_ids": wrong[:10]},
    )


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_index

    return judge_index(artifact)


LINK = Link(
    name="tokens",
    version=1,
    make=tokens,
    config=TokensConfig,
    inputs=("clean_corpus", "tokenizer"),
    stage="corpus",
    role="model-training",
    kinds=("python", "numpy"),
    checks=(
        Check("layout_holds", "The file has the size its layout states, and every token is in the vocabulary", _layout_holds),
        Check("index_holds", "The index leads from each document to its own tokens", _index_holds),
        Check("validation_held_out", "No held-out document stands in a training block", _parts_disjoint),
        Check("expectations", "Great Expectations: doc_ids unique, positions and lengths within the layout", _expectations),
    ),
    libraries=("numpy", "tokenizers"),
)
