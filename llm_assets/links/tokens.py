"""The link tokens: the clean corpus as packed blocks of numbers, ready to be mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from llm_assets.corpus.documents import ROW_GROUP, table_writer
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.mixture import Mixture, is_validation
from llm_assets.links.packing import Encoded, Packed, encode, pack
from llm_assets.links.plots import bars, histogram
from llm_assets.links.tokenizer import load, special_tokens
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokensConfig(Section):
    """How the text is packed."""

    context: int = Field(128, ge=8, description="tokens a block, the length the model is trained on")
    validation_share: float = Field(0.02, gt=0, lt=0.5, description="of the documents, picked by hash, for the validation loss of pretraining")
    weights: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(
        default_factory=dict,
        description="how often a source's training documents stand in the blocks: 2 is twice each, 0.5 every other, 0 none; a source not named: once",
    )

    def recipe(self) -> dict[str, Any]:
        """Without weights what it was before there were any."""
        values = super().recipe()
        return values if self.weights else {name: value for name, value in values.items() if name != "weights"}

    @property
    def mixture(self) -> Mixture:
        """What the weights ask for."""
        return Mixture(self.weights, self.validation_share)


def tokens(bench: Bench, config: TokensConfig, clean_corpus: Artifact, tokenizer: Artifact) -> Made:
    """Encodes the clean corpus and packs it into blocks of `context` tokens without waste.

    Each document starts with [CLS] and ends with [SEP], and holds no special token besides: one that its text names is spelt out. Documents
    follow each other in the order of their doc_ids, which mixes the sources, and may run on into the next block. Training blocks come first, then
    validation blocks; only the last block of each part is padded. `documents.parquet` leads from a doc_id to its blocks, and so from a block back
    to the documents in it. `weights` mix the sources: a document's copies stand a whole round apart, held-out documents always once; the metrics
    state the tokens of each source.
    """
    import numpy as np

    encoder = load(tokenizer.directory)
    encoded = _mixed(encode(bench, clean_corpus, encoder), config.mixture)
    held_out = np.fromiter((is_validation(name.decode(), config.validation_share) for name in encoded.names), np.bool_, len(encoded.names))
    index = pack(encoded, held_out, config.context, special_token_ids(tokenizer)["pad_token"], bench)
    _write_index(bench, encoded.names, index, config.context)
    tokens = int(index.lengths.sum())
    layout = {
        "dtype": f"uint{encoded.dtype.itemsize * 8}",
        "context": config.context,
        "blocks": sum(index.blocks),
        "train_blocks": index.blocks[0],
        "validation_blocks": index.blocks[1],
        "padding_tokens": sum(index.blocks) * config.context - tokens,
        "vocabulary_size": encoder.get_vocab_size(),
    }
    write_json(bench.directory / "layout.json", layout)
    histogram(bench.directory, "lengths", index.lengths, "Length of the documents", "tokens")
    parts = {"train": index.blocks[0], "validation": index.blocks[1]}
    bars(bench.directory, "blocks", parts, "Blocks", f"blocks of {config.context} tokens")
    return Made(
        metrics={
            **layout,
            "tokens": tokens,
            "tokens_by_source": encoded.by_source(~held_out),
            "documents": len(encoded.names),
            "validation_documents": int(held_out.sum()),
            "longer_than_a_block": int((index.lengths > config.context).sum()),
            "packing_efficiency": round(tokens / max(sum(index.blocks) * config.context, 1), 6),
        }
    )


def _mixed(encoded: Encoded, mixture: Mixture) -> Encoded:
    """The documents as often as the mixture says; without weights as they are."""
    if not mixture.weights:
        return encoded
    documents = ((name.decode(), encoded.known[source]) for name, source in zip(encoded.names, encoded.sources, strict=True))
    return encoded.taken(mixture.order(documents, encoded.known))


def _write_index(bench: Bench, names: NDArray[np.bytes_], index: Packed, context: int) -> None:
    import pyarrow as pa

    schema = pa.schema([("doc_id", pa.string()), *((name, pa.int64()) for name in ("block", "offset", "length", "blocks"))])
    with table_writer(bench.directory / "documents.parquet", schema) as append:
        for start in range(0, len(names), ROW_GROUP):
            rows = slice(start, start + ROW_GROUP)
            starts, lengths = index.starts[rows], index.lengths[rows]
            first = starts // context
            columns = [first, starts % context, lengths, (starts + lengths - 1) // context - first + 1]
            append(pa.table([pa.array([name.decode() for name in names[rows]], pa.string()), *map(pa.array, columns)], schema=schema))


def special_token_ids(tokenizer: Artifact) -> dict[str, int]:
    """The numbers of a tokenizer's special tokens by role; its own check has found that all are there."""
    encoder = load(tokenizer.directory)
    numbers = {role: encoder.token_to_id(token) for role, token in special_tokens(tokenizer.directory).items()}
    return {role: number for role, number in numbers.items() if number is not None}


def packed_blocks(artifact: Artifact) -> NDArray[np.unsignedinteger[Any]]:
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
    largest = int(packed_blocks(artifact).max()) if whole and size else -1
    return Verdict(
        check="layout_holds",
        passed=whole and 0 <= largest < layout["vocabulary_size"] and min(layout["train_blocks"], layout["validation_blocks"]) > 0,
        description=f"{layout['train_blocks']} + {layout['validation_blocks']} blocks of {layout['context']}: {size} bytes, {expected} expected; "
        f"largest token {largest} of {layout['vocabulary_size']}; both parts must hold blocks",
    )


def _index_holds(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    layout, index = artifact.json("layout.json"), artifact.table("documents.parquet", ["block", "offset", "length"])
    indexed, stream = _doc_ids(artifact), packed_blocks(artifact).reshape(-1)
    encoder, special = load(inputs["tokenizer"].directory), special_token_ids(inputs["tokenizer"])
    opening, closing = special["cls_token"], special["sep_token"]
    starts = index["block"].to_numpy() * layout["context"] + index["offset"].to_numpy()
    ends = starts + index["length"].to_numpy() - 1
    inside = len(ends) > 0 and int(ends.max()) < len(stream)
    framed = inside and bool(np.all(stream[starts] == opening) and np.all(stream[ends] == closing))
    sample = range(0, len(index), max(1, len(index) // 50))
    looked_up = {indexed[place].decode(): place for place in sample}
    texts: dict[str, str] = {}
    for batch in inputs["clean_corpus"].batches("documents.parquet", ["doc_id", "text"]):
        texts |= {one: batch["text"][row].as_py() for row, one in enumerate(batch["doc_id"].to_pylist()) if one in looked_up}
    missing = _differing(_expected(artifact, inputs["clean_corpus"]), indexed)
    wrong = [
        one
        for one, place in looked_up.items()
        if framed and encoder.encode(texts.get(one, "")).ids != stream[starts[place] : ends[place] + 1].tolist()
    ]
    return Verdict(
        check="index_holds",
        passed=framed and not missing and not wrong,
        description=f"{len(index)} documents, {missing} missing, foreign or not as often as due; {'all' if framed else 'not all'} opened and closed; "
        f"{len(wrong)} of {len(sample)} looked up are not their document's tokens",
        values={"doc_ids": wrong[:10]},
    )


def _expected(artifact: Artifact, clean_corpus: Artifact) -> NDArray[np.bytes_]:
    """The doc_ids that the index holds, each as often as its source's weight says."""
    import numpy as np

    mixture = TokensConfig.model_validate(artifact.manifest.recipe["config"]).mixture
    if not mixture.weights:
        return _doc_ids(clean_corpus)
    rows = (row for batch in clean_corpus.batches("documents.parquet", ["doc_id", "source"]) for row in batch.to_pylist())
    return np.array([row["doc_id"] for row in rows for _ in range(mixture.copies(row["doc_id"], row["source"]))], "S20")


def _differing(one: NDArray[np.bytes_], other: NDArray[np.bytes_]) -> int:
    """How many values do not stand equally often in both."""
    import numpy as np

    _, place = np.unique(np.concatenate([one, other]), return_inverse=True)
    return int(np.count_nonzero(np.bincount(place, np.concatenate([np.ones(len(one)), -np.ones(len(other))]))))


def _doc_ids(artifact: Artifact) -> NDArray[np.bytes_]:
    """The doc_ids of the artifact's documents, 20 bytes each."""
    import numpy as np

    pieces = (np.array(batch["doc_id"].to_pylist(), "S20") for batch in artifact.batches("documents.parquet", ["doc_id"]))
    return np.concatenate([np.empty(0, "S20"), *pieces])


def _parts_disjoint(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    border, share = artifact.json("layout.json")["train_blocks"], artifact.manifest.recipe["config"]["validation_share"]
    wrong: list[str] = []
    for batch in artifact.batches("documents.parquet", ["doc_id", "block", "blocks"]):
        rows = zip(*(batch[column].to_pylist() for column in ("doc_id", "block", "blocks")), strict=True)
        wrong += [one for one, block, blocks in rows if (block >= border) != is_validation(one, share) or block < border < block + blocks]
    return Verdict(
        check="validation_held_out",
        passed=not wrong,
        description=f"{len(wrong)} of {artifact.rows('documents.parquet')} documents stand in the part they do not belong to",
        values={"doc_ids": wrong[:10]},
    )


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_index

    return judge_index(artifact)


LINK = Link(
    name="tokens",
    version=2,
    make=tokens,
    config=TokensConfig,
    inputs=("clean_corpus", "tokenizer"),
    stage="corpus",
    role="programmer",
    kinds=("python", "numpy"),
    checks=(
        Check("layout_holds", "The file has the size its layout states, and every token is in the vocabulary", _layout_holds),
        Check("index_holds", "The index leads from each document to its own tokens", _index_holds),
        Check("validation_held_out", "No held-out document stands in a training block", _parts_disjoint),
        Check("expectations", "Great Expectations: doc_ids unique, positions and lengths within the layout", _expectations),
    ),
    libraries=("numpy", "tokenizers"),
)
