"""Tokenizers trained on a corpus: byte-pair encoding of characters or of bytes, unigram, or the words that a segmenter finds.

All are one file that the ``tokenizers`` library alone reads, so training and serving cut a text alike. Frequent characters
have an entry each, rare ones are spelt in bytes (where all merges are of bytes, every character begins as its own): nothing is
ever unknown, and decoding gives the text back.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.pii import MASKS, TOKEN
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
TURNS = ("<|im_start|>", "<|im_end|>")  # special tokens of a decoder, around each turn of a conversation
VIRTUAL = "<|prompt_{}|>"  # the name of a token that stands for a learnt vector (training/prompts.py)
BYTES = [f"<0x{value:02X}>" for value in range(256)]  # what a character outside the alphabet is spelt with
# Runs of Han, of other letters, of signs; digits one by one. A leading space belongs to the run, so that no text is lost.
PIECES = r" ?\p{Han}+| ?[\p{L}\p{M}&&[^\p{Han}]]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
# Qwen2's pieces (Hugging Face: Qwen/Qwen2-0.5B, tokenizer.json), so that llama.cpp's pre-tokenizer "qwen2" cuts alike.
QWEN2_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WIDEST = 4  # bytes of UTF-8 in a character
RARE = 0.5  # occurrences that a character counts for which never stands as a word by itself


class Vocabulary(Strict):
    """What the entries of a vocabulary are."""

    kind: Literal["bpe", "byte_bpe", "unigram", "words"] = Field(
        "bpe",
        description="byte-pair encoding of characters; of bytes, as decoders and llama.cpp have it; unigram language model; "
        "words found by the segmenter jieba (needs the extra `words`)",
    )
    vocabulary: int = Field(8192, ge=600, description="entries, the 256 bytes and the special tokens included")
    alphabet: int = Field(
        3000, ge=50, description="most frequent characters that get an entry of their own; others are spelt in bytes; none in byte_bpe"
    )
    longest: int = Field(8, ge=1, description="characters a token may hold; in byte_bpe four bytes count as one")
    training_characters: int = Field(1_000_000, ge=1000, description="of the corpus, picked by doc_id")
    minimum_frequency: int = Field(2, ge=1, description="of a merge, or of a word, in the training text")
    lowercase: bool = Field(False, description="whether case is forgotten: Great and great are one entry, and decoding gives small letters back")
    stop_words: list[str] = Field(default_factory=list, description="words (kind words) that get no entry; their characters remain")
    sentinels: int = Field(
        0, ge=0, description="special tokens, the last entries, for the spans that objective span_denoising cuts out of a text (T5 has 100); 0: none"
    )


def train(settings: Vocabulary, texts: Sequence[str]) -> Tokenizer:
    """A tokenizer of the kind asked for. Raises ``SourceError`` where jieba is missing.

    The same texts give the same one; but for kind unigram, whose trainer gives the same entries with scores that differ by up to 0.005.
    """
    from tokenizers import normalizers

    pieces = [piece for text in texts for piece in TOKEN.split(text)]  # else the letters of a frequent mask would become entries
    small = normalizers.Lowercase()
    kept = sentinels(settings.sentinels)
    settings = settings.model_copy(update={"vocabulary": settings.vocabulary - len(kept)})
    if settings.lowercase:
        pieces = [small.normalize_str(piece) for piece in pieces]
    if settings.kind == "byte_bpe":
        finished = _pairs_of_bytes(settings, pieces)
    else:
        finished = _finished({"bpe": _byte_pairs, "unigram": _unigram, "words": _words}[settings.kind](settings, pieces))
    if settings.lowercase:
        finished.normalizer = small
    if kept:
        finished.add_special_tokens(kept)
    return finished


def sentinels(count: int) -> list[str]:
    """Special tokens that stand where a span was cut out of a text, by T5's names for them (Raffel et al. 2020, section 3.1.4)."""
    return [f"<extra_id_{number}>" for number in range(count)]


def _byte_pairs(settings: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """Sennrich et al. 2016 (arXiv 1508.07909), merging inside runs of one script."""
    from tokenizers import models, trainers

    alphabet = _alphabet(settings, texts)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary - len(BYTES) - len(MASKS),
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=settings.longest,
        min_frequency=settings.minimum_frequency,
        show_progress=False,
    )
    described = _described(models.BPE(unk_token="[UNK]"), trainer, texts)
    vocabulary = described["model"]["vocab"]
    vocabulary |= {token: len(vocabulary) + place for place, token in enumerate(BYTES)}
    return described


def _pairs_of_bytes(settings: Vocabulary, texts: Sequence[str]) -> Tokenizer:
    """The same over bytes, as GPT-2 writes them (Radford et al. 2019, section 2.2): a Llama's, Qwen's or Gemma's kind of file.

    Ties between pairs are broken by their entries' numbers and the alphabet is fixed, so the same texts give the same tokenizer.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    finished = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(QWEN2_PIECES), "isolated")
    finished.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    finished.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary - len(MASKS),
        special_tokens=[*SPECIAL.values(), *TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=WIDEST * settings.longest,
        min_frequency=settings.minimum_frequency,
        show_progress=False,
    )
    finished.train_from_iterator(texts, trainer)
    finished.add_tokens([AddedToken(token, normalized=False) for token in MASKS.values()])
    return _framed(finished)


def _unigram(settings: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """Kudo 2018 (arXiv 1804.10959): entries whose most probable sequence spells the text."""
    from tokenizers import models, trainers

    alphabet = set(_alphabet(settings, texts))
    trainer = trainers.UnigramTrainer(
        vocab_size=settings.vocabulary - len(BYTES) - len(MASKS),
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(alphabet),
        max_piece_length=settings.longest,
        unk_token="[UNK]",
        show_progress=False,
    )
    kept = ["".join(character for character in text if character in alphabet) for text in texts]  # rare characters are left to the bytes
    described = _described(models.Unigram(), trainer, kept)
    least = min(score for _, score in described["model"]["vocab"])
    described["model"]["vocab"] += [[token, least - 1] for token in BYTES]
    return described


def _words(settings: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """The words that jieba finds, as a unigram model over their frequencies.

    The most probable path over a dictionary is jieba's own way; what is missing are its guesses at words it does not know.
    """
    try:
        import jieba
    except ModuleNotFoundError as error:
        raise SourceError("tokenizer: kind words needs the segmenter jieba: pip install 'llm-assets[words]'") from error
    from tokenizers import Tokenizer, models

    jieba.setLogLevel("WARNING")
    counts = Counter(word for text in texts for word in jieba.cut(text))
    alphabet = _alphabet(settings, texts)
    stop = set(settings.stop_words)
    words = [
        word
        for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if 1 < len(word) <= settings.longest and count >= settings.minimum_frequency and word not in stop and not word.isspace()
    ]
    room = settings.vocabulary - len(BYTES) - len(MASKS) - len(SPECIAL) - len(alphabet)
    total = math.log(counts.total() or 1)
    entries = [[token, 0.0] for token in SPECIAL.values()]
    entries += [[entry, math.log(max(counts[entry], RARE)) - total] for entry in [*alphabet, *words[: max(room, 0)]]]
    entries += [[token, math.log(RARE) - total - 1] for token in BYTES]
    described: dict[str, Any] = json.loads(Tokenizer(models.Unigram([("[UNK]", 0.0)], 0)).to_str())
    described["model"]["vocab"] = entries
    described["model"]["unk_id"] = list(SPECIAL.values()).index("[UNK]")
    described["pre_tokenizer"] = json.loads(_draft(models.BPE()).to_str())["pre_tokenizer"]
    described["added_tokens"] = [
        {"id": place, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for place, token in enumerate(SPECIAL.values())
    ]
    return described


def _alphabet(settings: Vocabulary, texts: Sequence[str]) -> list[str]:
    """The most frequent characters, counted here: the trainer breaks ties between equally frequent ones at random."""
    counts = Counter(character for text in texts for character in text)
    return sorted(counts, key=lambda character: (-counts[character], character))[: settings.alphabet]


def _draft(model: Any) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers

    draft = Tokenizer(model)
    draft.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    draft.add_tokens([AddedToken(token, normalized=False) for token in MASKS.values()])
    return draft


def _described(model: Any, trainer: Any, texts: Sequence[str]) -> dict[str, Any]:
    draft = _draft(model)
    draft.train_from_iterator(texts, trainer)
    described: dict[str, Any] = json.loads(draft.to_str())
    return described


def _finished(described: dict[str, Any]) -> Tokenizer:
    """The trained model with byte fallback, the masks of personal data as tokens that are never split, and the frame of a document."""
    from tokenizers import AddedToken, Tokenizer, decoders

    described["model"]["byte_fallback"] = True
    described["added_tokens"] = [token for token in described["added_tokens"] if token["special"]]
    finished = Tokenizer.from_str(json.dumps(described))
    finished.add_tokens([AddedToken(token, normalized=False) for token in MASKS.values()])
    finished.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _framed(finished)


def _framed(finished: Tokenizer) -> Tokenizer:
    """With [CLS] before a document and [SEP] after it."""
    from tokenizers import processors

    framing = [(token, finished.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    finished.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=framing)
    return finished


def virtual_tokens(known: Mapping[str, int]) -> list[int]:
    """The ids of a vocabulary's virtual tokens, by their numbers: what stands before all else that its model reads."""
    found: list[int] = []
    while (token := VIRTUAL.format(len(found))) in known:
        found.append(int(known[token]))
    return found


def spells_bytes(encoder: Tokenizer) -> bool:
    """Whether a tokenizer's entries are written in GPT-2's alphabet of bytes."""
    return bool((json.loads(encoder.to_str())["decoder"] or {}).get("type") == "ByteLevel")


def bytes_of_tokens(encoder: Tokenizer) -> list[int]:
    """How many bytes of UTF-8 each entry writes, by its number.

    Nothing for a special token, which stands for no text; a mask of personal data counts as what it is written with. The bytes of
    a text's tokens add up to the text's, as the tokenizer's normaliser leaves it.
    """
    special = {number for number, token in encoder.get_added_tokens_decoder().items() if token.special}
    added, in_bytes, spelt = set(MASKS.values()), spells_bytes(encoder), set(BYTES)
    lengths = [0] * (max(encoder.get_vocab().values()) + 1)
    for token, number in encoder.get_vocab().items():
        if number not in special:
            lengths[number] = 1 if token in spelt else len(token) if in_bytes and token not in added else len(token.encode())
    return lengths
