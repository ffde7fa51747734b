"""What datatrove does with the same texts: cleaning, Gopher's rules and MinHash, stage by stage."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.timing import timed

ENGLISH = "eng"  # datatrove then cuts words with spaCy's rules for English, which need no model


class Stages(NamedTuple):
    """Seconds of datatrove's stages, and which texts it keeps."""

    cleaning: float
    rules: float
    signatures: float
    kept: list[bool]


def stages(texts: Sequence[str], language: Any, quality: Mapping[str, Any], repetition: Mapping[str, Any], scratch: Path) -> Stages:
    """Run ftfy and PII masking, Gopher's quality and repetition filters, then MinHash signatures of 128 hashes, over all texts.

    ``language`` is a code of datatrove's or a segmenter; the other two hold what differs from the filters' defaults.
    """
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter

    filters = [GopherQualityFilter(**quality, language=language), GopherRepetitionFilter(**repetition, language=language)]
    marker = _marker(language, scratch)
    formatters = [FTFYFormatter(), PIIFormatter()]

    def clean(text: str) -> str:
        for formatter in formatters:
            text = formatter.format(text)
        return text

    def keeps(document: Any) -> bool:
        return all(one.filter(document) is True for one in filters)

    keeps(Document(text=texts[0], id="first"))  # segmenters load at their first use
    cleaned, cleaning = timed(lambda: [Document(text=clean(text), id=str(place)) for place, text in enumerate(texts)])
    kept, rules = timed(lambda: [keeps(document) for document in cleaned])
    shingled = (marker.get_shingles(document.text) for document in cleaned)
    _, signatures = timed(lambda: [marker.get_signature(shingles) for shingles in shingled if len(shingles)])  # too short a text has none
    return Stages(cleaning, rules, signatures, kept)


def clusters(texts: Sequence[str], language: Any, scratch: Path) -> list[int]:
    """The cluster of each text by datatrove's stages signatures, buckets and clusters; a number below 0 is a text alone.

    Texts that share a bucket of 4 hashes are together: no later stage compares their whole signatures.
    """
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupCluster
    from loguru import logger

    logger.disable("datatrove")
    marks, pairs, found = (str(scratch / name) for name in ("signatures", "pairs", "clusters"))
    marker = _marker(language, scratch / "signatures")
    marker.run(Document(text=text, id=str(place)) for place, text in enumerate(texts))
    for bucket in range(marker.config.num_buckets):
        MinhashDedupBuckets(marks, pairs, config=marker.config).run(rank=bucket, world_size=marker.config.num_buckets)
    MinhashDedupCluster(pairs, found, config=marker.config, save_cluster_id=True).run()
    cluster = [-1 - place for place in range(len(texts))]
    for place, number in struct.iter_unpack("<2I", (scratch / "clusters" / "000000.clusters").read_bytes()):
        cluster[place] = number
    return cluster


def jieba_words() -> Any:
    """jieba's words: datatrove's own setting for Chinese gives whole sentences with the spaCy release of today."""
    import jieba

    jieba.setLogLevel("WARNING")
    return _segmenter(lambda text: [word for word in jieba.cut(text) if not word.isspace()])


def characters() -> Any:
    """Each letter and digit as a word, so that n-grams of words are n-grams of characters."""
    return _segmenter(lambda text: [character for character in text if character.isalnum()])


def _segmenter(cut: Callable[[str], list[str]]) -> Any:
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Segmenter(WordTokenizer):  # type: ignore[misc]  # datatrove states no types
        def word_tokenize(self, text: str) -> list[str]:
            return cut(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Segmenter()


def _marker(language: Any, folder: Path) -> Any:
    """Signatures of trigrams in 32 buckets of 4 hashes, as ours."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(n_grams=3, num_buckets=32, hashes_per_bucket=4, hash_config=HashConfig(hash_fc="sha1"))
    return MinhashDedupSignature(str(folder), config=config, language=language)
