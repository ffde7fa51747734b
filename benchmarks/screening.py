"""Screening against datatrove, on Chinese reviews and on English pages."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.material import batches, english_pages, megabytes, reviews
from benchmarks.peers import ENGLISH, Stages, jieba_words, stages
from benchmarks.result import Result
from benchmarks.timing import timed, use_cores
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.codepoints import flatten, letters, ngrams
from llm_assets.corpus.near_duplicates import signatures
from llm_assets.corpus.screening import LanguageRules, Texts, first_rule

CHINESE = LanguageRules(scripts=["Han"], maximum_characters=4000, boilerplate=["免费注册 网站导航"])
# What our rules ask, as far as datatrove's, which are made of words, can ask it.
CHINESE_QUALITY = {
    "min_doc_words": 2,
    "max_doc_words": 4000,
    "min_avg_word_length": None,
    "max_avg_word_length": None,
    "max_symbol_word_ratio": 0.5,
    "max_non_alpha_words_ratio": None,
    "min_stop_words": None,
}
CHINESE_REPETITION = {  # our trigram rule: 0.3 different
    "top_n_grams": tuple((n, 0.7) for n in (2, 3, 4)),
    "dup_n_grams": tuple((n, 0.7) for n in range(5, 11)),
}
PAGES = LanguageRules(scripts=["Latin"], minimum_characters=20)


def screening(preset: str, home: Path) -> Result:
    """Cleaning, rules and MinHash signatures on one core, against datatrove's Gopher filters, ftfy, PII and MinHash."""
    return _compared(
        "screening",
        "reviews; lengths, symbols and repetition set alike as far as datatrove's word-based rules allow, its words are jieba's",
        reviews(),
        CHINESE,
        1_500,
        lambda texts, scratch: stages(texts, jieba_words(), CHINESE_QUALITY, CHINESE_REPETITION, scratch),
    )


def screening_english(preset: str, home: Path) -> Result:
    """What `screening` compares, on English pages of 2 to 20 KB, with datatrove's filters and words as it has them for English."""
    _repetition(english_pages())
    return _compared(
        "screening_english",
        "English pages; ours and datatrove's filters at their defaults, words by spaCy; MinHash 128 hashes of trigrams both",
        english_pages(),
        PAGES,
        300,
        lambda texts, scratch: stages(texts, ENGLISH, {}, {}, scratch),
    )


def _repetition(pages: Sequence[str]) -> None:
    """Print how the share of different trigrams falls with the length of a page, which the rule `repetitive` goes by."""
    import numpy as np

    hashes, starts = ngrams(flatten(pages), 3)
    runs = np.diff(starts)
    share = np.array([len(np.unique(hashes[one:other])) for one, other in pairwise(starts.tolist())]) / np.maximum(runs, 1)
    for least, most in pairwise((1_000, 2_000, 4_000, 8_000, 12_000, 30_000)):
        within = (runs >= least) & (runs < most)
        print(f"{int(within.sum()):>6,} pages of {least:>6,} to {most:>6,} trigrams: {np.median(share[within]):.2f} of them different (median)")


def _compared(
    name: str, what: str, texts: Sequence[str], rules: LanguageRules, few: int, datatrove: Callable[[Sequence[str], Path], Stages]
) -> Result:
    """The table of speeds; datatrove gets ``few`` of the texts, since its speed does not depend on their number."""
    use_cores(1)
    clean_texts(texts[:10]), first_rule(Texts(list(texts[:10])), rules), letters(texts[:10])  # tables are built once a process
    cut = list(batches(texts))
    cleaned, ours_cleaning = timed(lambda: [clean_texts(batch).texts for batch in cut])
    verdicts, ours_rules = timed(lambda: [first_rule(Texts(batch), rules) for batch in cleaned])
    _, ours_marks = timed(lambda: [signatures(letters(batch)) for batch in cleaned])
    drawn = random.Random(0).sample(range(len(texts)), few)
    size, share = megabytes(texts), megabytes([texts[index] for index in drawn])
    with tempfile.TemporaryDirectory() as scratch:
        theirs = datatrove([texts[index] for index in drawn], Path(scratch))
    flat = [rule for batch in verdicts for rule in batch]
    ours_kept = [flat[index] is None for index in drawn]
    print(f"{len(texts):,} {what}")
    print(f"{size:.1f} MB, one core; datatrove on {few:,} of them, {share:.1f} MB")
    print(f"{'stage':<34}{'ours':>12}{'datatrove':>12}   MB/s")
    rows = [
        ("encoding, spelling, personal data", ours_cleaning, theirs.cleaning),
        ("rules", ours_rules, theirs.rules),
        ("MinHash signatures", ours_marks, theirs.signatures),
    ]
    for stage, ours, peer in rows:
        print(f"{stage:<34}{size / ours:>12.2f}{share / peer:>12.2f}")
    speed, peer_speed = size / (ours_cleaning + ours_rules + ours_marks), share / (theirs.cleaning + theirs.rules + theirs.signatures)
    print(f"{'all':<34}{speed:>12.2f}{peer_speed:>12.2f}")
    agree = sum(one == other for one, other in zip(ours_kept, theirs.kept, strict=True)) / few
    print(f"both decide alike on {agree:.1%}; ours keep {sum(ours_kept) / few:.1%}, datatrove's {sum(theirs.kept) / few:.1%}")
    return Result(name, round(speed / peer_speed, 1), "times datatrove", "at least 10, stretch 20", speed / peer_speed >= 10)
