"""The link tokenizer: text into numbers and back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.documents import EVIDENCE_LENGTH, SAMPLES
from llm_assets.corpus.pii import TOKEN, excerpt
from llm_assets.corpus.places import local
from llm_assets.corpus.vocabulary import BYTES, SPECIAL, TURNS, Vocabulary, sentinels, spells_bytes, train
from llm_assets.links import pages
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import sha256_file, write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = 500  # documents that the figures and the checks are taken from
FILES = ("tokenizer.json", "tokenizer_config.json")
DECODER = {"bos_token": SPECIAL["cls_token"], "eos_token": SPECIAL["sep_token"]}  # also said of byte_bpe


class TokenizerConfig(Section, Vocabulary):
    """The vocabulary."""

    existing: str | None = Field(
        None,
        description="folder with tokenizer.json and tokenizer_config.json to take instead of training one; "
        "a relative one is looked up in the data root, then in the project root",
    )
    maximum_unknown: float = Field(0.001, ge=0, le=1, description="the check fails when a larger share of tokens is [UNK]")
    maximum_length: int = Field(8192, ge=8, description="tokens; what the tokenizer states as model_max_length")

    def recipe(self) -> dict[str, Any]:
        """Without sentinels what it was before there were any."""
        values = super().recipe()
        return values if self.sentinels else {name: value for name, value in values.items() if name != "sentinels"}

    def settings(self) -> dict[str, Any]:
        """What ``tokenizer_config.json`` says of a tokenizer that is trained."""
        extra = [*(TURNS if self.kind == "byte_bpe" else ()), *sentinels(self.sentinels)]
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.maximum_length,
            "clean_up_tokenization_spaces": False,
            **SPECIAL,
            **(DECODER if self.kind == "byte_bpe" else {}),
            **({"extra_special_tokens": extra} if extra else {}),
        }


def observe_existing(config: TokenizerConfig) -> dict[str, Any]:
    """The hashes of an existing tokenizer's files; nothing where one is trained. Raises ``SourceError`` where they are gone."""
    return {name: sha256_file(path) for name, path in _existing(config).items()} if config.existing else {}


def tokenizer(bench: Bench, config: TokenizerConfig, clean_corpus: Artifact) -> Made:
    """Trains a tokenizer on the clean corpus, a byte-pair encoding unless another kind is asked for, or takes over an existing one.

    No word segmentation: merges form inside runs of Han characters, so common words become tokens by themselves. Frequent
    characters have an entry each, rare ones are spelt in bytes, so nothing is ever unknown and decoding gives the text back.
    The metrics state bytes a token and the unknown share. The tokens that mask personal data are never split.
    """
    if config.existing:
        for name, path in _existing(config).items():
            shutil.copyfile(path, bench.directory / name)
    else:
        train(config, _training_texts(clean_corpus, config.training_characters)).save(str(bench.directory / "tokenizer.json"))
        write_json(bench.directory / "tokenizer_config.json", config.settings())
    encoder = load(bench.directory)
    sample = _sample(clean_corpus)
    encodings = encoder.encode_batch(sample, add_special_tokens=False)
    tokens = [token for encoding in encodings for token in encoding.tokens]
    spelt = _single_bytes(encoder)
    lengths = Counter(len(token) for token in encoder.get_vocab() if token not in spelt)  # in bytes where entries are of bytes
    bars(bench.directory, "vocabulary", {str(length): lengths[length] for length in sorted(lengths)}, "Vocabulary by length of the token", "entries")
    histogram(bench.directory, "lengths", [len(encoding.ids) for encoding in encodings], "Length of the documents", "tokens")
    columns = ("text", "tokens")
    rows = [(text, " | ".join(_pieces(encoder, text))) for text in map(excerpt, sample[:SAMPLES])]
    pages.table(bench.directory, "tokens", "How texts are cut", columns, rows, f"{SAMPLES} documents, cut to {EVIDENCE_LENGTH} characters")
    return Made(
        metrics={
            "vocabulary": encoder.get_vocab_size(),
            "bytes_per_token": round(sum(len(text.encode()) for text in sample) / max(len(tokens), 1), 4),
            "unknown_share": tokens.count(special_tokens(bench.directory).get("unk_token", "")) / max(len(tokens), 1),
            "byte_share": round(sum(token in spelt for token in tokens) / max(len(tokens), 1), 5),
            "round_trip_share": 1 - _lossy(encoder, sample) / max(len(sample), 1),
            "used_share": round(len(set(tokens)) / max(encoder.get_vocab_size(), 1), 4),
            "kind": "existing" if config.existing else config.kind,
            "existing": config.existing,
        }
    )


def special_tokens(directory: Path) -> dict[str, str]:
    """What a tokenizer calls each special token, by role such as ``pad_token``; a role it does not have is left out."""
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    named = {role: settings.get(role) for role in SPECIAL}
    return {role: str(token["content"] if isinstance(token, dict) else token) for role, token in named.items() if token is not None}


def load(directory: Path) -> Tokenizer:
    """The tokenizer in a folder, without importing transformers; of text alone: what looks like a special token in it is spelt out."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(directory / "tokenizer.json"))
    found.encode_special_tokens = True  # else a document that speaks of [MASK] or <|im_end|> would mask itself, or end a turn
    return found


def refuse_without_sentinels(tokenizer: Artifact, needed: int) -> None:
    """Raises ``ValueError`` where a tokenizer has not as many sentinels as spans are cut out of a text."""
    encoder = load(tokenizer.directory)
    if missing := [token for token in sentinels(needed) if encoder.token_to_id(token) is None]:
        raise ValueError(
            f"objective span_denoising cuts up to {needed} spans out of a document, and the tokenizer has no {missing[0]} to stand for one: "
            f"set tokenizer.sentinels to {needed} or more, or lower corruption or raise mean_span"
        )


def _training_texts(clean_corpus: Artifact, characters: int) -> list[str]:
    """The first texts, in the order of their doc_ids, that together hold so many characters."""
    import numpy as np
    import pyarrow.compute as pc

    names, lengths = [np.empty(0, "S20")], [np.empty(0, np.int64)]
    for batch in clean_corpus.batches("documents.parquet", ["doc_id", "text"]):
        names.append(np.array(batch["doc_id"].to_pylist(), "S20"))
        lengths.append(pc.utf8_length(batch["text"]).to_numpy().astype(np.int64))
    order = np.argsort(np.concatenate(names), kind="stable")
    before = np.cumsum(np.concatenate(lengths)[order]) - np.concatenate(lengths)[order]
    place = {index: number for number, index in enumerate(order[before < characters].tolist())}
    chosen, start = [""] * len(place), 0
    for batch in clean_corpus.batches("documents.parquet", ["text"]):
        for index in range(start, start + len(batch)):
            if index in place:
                chosen[place[index]] = batch["text"][index - start].as_py()
        start += len(batch)
    return chosen


def _sample(clean_corpus: Artifact) -> list[str]:
    """The texts whose SHA-256 is smallest: a sample that hardly changes with the corpus."""
    chosen: list[tuple[bytes, str]] = []
    for batch in clean_corpus.batches("documents.parquet", ["text"]):
        chosen += [(hashlib.sha256(text.encode()).digest(), text) for text in batch["text"].to_pylist()]
        chosen = sorted(chosen)[:SAMPLE]
    return [text for _, text in chosen]


def _single_bytes(encoder: Tokenizer) -> set[str]:
    """The entries that write one byte of a longer character: what a character without an entry is spelt with."""
    if not spells_bytes(encoder):
        return set(BYTES)
    from tokenizers import pre_tokenizers

    return {token for token in pre_tokenizers.ByteLevel.alphabet() if not token.isascii()}


def _pieces(encoder: Tokenizer, text: str) -> list[str]:
    """A text's tokens as a person reads them: of entries in bytes the characters that each has a part of."""
    encoding = encoder.encode(text, add_special_tokens=False)
    return [text[start:end] for start, end in encoding.offsets] if spells_bytes(encoder) else encoding.tokens


def _lossy(encoder: Tokenizer, texts: list[str]) -> int:
    """How many texts do not come back from their tokens as they were, or as the tokenizer's own normalizer writes them."""
    encodings = encoder.encode_batch(texts, add_special_tokens=False)
    written = texts if encoder.normalizer is None else _normalised(encoder, texts)
    return sum(encoder.decode(encoding.ids, skip_special_tokens=False) != text for text, encoding in zip(written, encodings, strict=True))


def _normalised(encoder: Tokenizer, texts: list[str]) -> list[str]:
    """Each text as the normalizer writes it; a mask of personal data it leaves alone."""
    found = []
    for text in texts:
        between, masks = TOKEN.split(text), TOKEN.findall(text)
        parts = [encoder.normalizer.normalize_str(piece) + mask for piece, mask in zip(between, [*masks, ""], strict=True)]
        found.append("".join(parts))
    return found


def _existing(config: TokenizerConfig) -> dict[str, Path]:
    folder = local(str(config.existing)) or Path(str(config.existing))
    paths = {name: folder / name for name in FILES}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise SourceError(f"tokenizer: {', '.join(missing)} is not there; correct `existing` of the section tokenizer, or leave it out to train one")
    return paths


def _special_tokens(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    encoder, named = load(artifact.directory), special_tokens(artifact.directory)
    missing = [role for role in SPECIAL if encoder.token_to_id(named.get(role, "")) is None]
    ids = encoder.encode("").ids
    framed = not missing and ids == [encoder.token_to_id(named[role]) for role in ("cls_token", "sep_token")]
    return Verdict(
        check="special_tokens",
        passed=framed,
        description=f"missing: {', '.join(missing)}" if missing else f"all there; a text {'is' if framed else 'is not'} opened and closed",
    )


def _round_trip(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    sample = _sample(inputs["clean_corpus"])
    lossy = _lossy(load(artifact.directory), sample)
    description = f"{lossy} of {len(sample)} documents do not come back from their tokens as they were"
    return Verdict(check="round_trip", passed=not lossy, description=description)


def _few_unknown(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    encoder, ceiling = load(artifact.directory), artifact.manifest.recipe["config"]["maximum_unknown"]
    unknown = encoder.token_to_id(special_tokens(artifact.directory).get("unk_token", ""))
    ids = [one for encoding in encoder.encode_batch(_sample(inputs["clean_corpus"]), add_special_tokens=False) for one in encoding.ids]
    share = sum(one == unknown for one in ids) / max(len(ids), 1)
    description = f"{share:.4%} of the tokens are unknown, at most {ceiling:.4%} allowed"
    return Verdict(check="few_unknown", passed=share <= ceiling, description=description, values={"share": share})


LINK = Link(
    name="tokenizer",
    version=4,
    make=tokenizer,
    config=TokenizerConfig,
    inputs=("clean_corpus",),
    stage="corpus",
    role="programmer",
    kinds=("python", "huggingface"),
    checks=(
        Check("special_tokens", "Padding, unknown, mask and framing tokens are there and frame a text", _special_tokens),
        Check("round_trip", "Decoding a document's tokens gives the document back", _round_trip, blocking=False),
        Check("few_unknown", "Almost no token is unknown", _few_unknown),
    ),
    observe=observe_existing,
    libraries=("tokenizers",),
)
