"""The three kinds of tokenizers: what they make of text, and how well classifiers learn from their tokens."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from benchmarks.material import labelled, megabytes
from benchmarks.near_duplicates import split
from benchmarks.result import Result
from benchmarks.timing import timed, use_cores
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.vocabulary import Vocabulary, train
from llm_assets.evaluation.baselines import REGULARIZATION

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

SEEDS = (0, 1, 2)
HASHED = 1 << 18  # columns of the token 1-2-grams
WIDTH, EPOCHS, BATCH, LEARNING_RATE = 64, 8, 64, 2e-3  # of the bag of embeddings
Tokens = list[list[int]]


class Task(NamedTuple):
    """Texts to learn from and to be judged on, and whether each is positive."""

    learn: list[str]
    known: NDArray[np.bool_]
    judge: list[str]
    wanted: NDArray[np.bool_]


def tokenizers(preset: str, home: Path) -> Result:
    """The kinds bpe, unigram and words of the link tokenizer: size, losses, speed, and the accuracy of two classifiers on their tokens.

    Vocabularies and classifiers learn from the training reviews of a split that keeps near-duplicates together, and are judged on its
    test reviews: logistic regression over hashed token 1- and 2-grams, and a mean of embeddings with three seeds in torch. One core.
    """
    use_cores(1)
    task = _task()
    print(f"{len(task.learn):,} reviews to learn from, {len(task.judge):,} to be judged on; mean and half the range of {len(SEEDS)} seeds")
    columns = f"{'kind':<10}{'entries':>9}{'bytes/token':>13}{'unknown':>9}{'round trip':>12}{'training':>10}{'encoding':>13}"
    print(f"{columns}{'logistic':>10}{'embeddings':>18}")
    found = [_measure(kind, task) for kind in get_args(Vocabulary.model_fields["kind"].annotation)]
    logistic, embedded = (100 * (max(figures) - min(figures)) for figures in zip(*found, strict=True))
    error = 100 * math.sqrt(0.85 * 0.15 / len(task.judge))
    print(f"best less worst kind: {logistic:.2f} and {embedded:.2f} points; the standard error of one accuracy is about {error:.2f}")
    return Result("tokenizers", round(max(logistic, embedded), 2), "points of accuracy between best and worst kind", "shown, not reached for", True)


def _task() -> Task:
    import numpy as np

    raw = labelled()
    texts = clean_texts([text for text, _ in raw]).texts
    apart = split(texts)
    positive = np.array([label == "positive" for _, label in raw])
    learn, judge = ([texts[index] for index in np.flatnonzero(part)] for part in (apart.train, apart.test))
    return Task(learn, positive[apart.train], judge, positive[apart.test])


def _measure(kind: Literal["bpe", "unigram", "words"], task: Task) -> tuple[float, float]:
    """Print the row of a kind; returns the accuracy of the logistic regression, and the mean of those over embeddings."""
    encoder, training = timed(lambda: train(Vocabulary(kind=kind), task.learn))
    given, encoding = timed(lambda: _encode(encoder, task.learn))
    asked = _encode(encoder, task.judge)
    tokens = [token for ids in asked for token in ids]
    unknown = tokens.count(int(encoder.token_to_id("[UNK]") or 0)) / len(tokens)
    whole = sum(encoder.decode(ids, skip_special_tokens=False) == text for ids, text in zip(asked, task.judge, strict=True)) / len(asked)
    logistic = _logistic_regression(given, asked, task)
    runs = [_embeddings(given, asked, task, encoder.get_vocab_size(), seed) for seed in SEEDS]
    print(
        f"{kind:<10}{encoder.get_vocab_size():>9,}{1e6 * megabytes(task.judge) / len(tokens):>13.2f}{unknown:>9.2%}{whole:>12.2%}"
        f"{training:>8.1f} s{megabytes(task.learn) / encoding:>8.2f} MB/s"
        f"{logistic:>10.4f}{statistics.mean(runs):>9.4f} ± {(max(runs) - min(runs)) / 2:.4f}",
        flush=True,
    )
    return logistic, statistics.mean(runs)


def _encode(encoder: Tokenizer, texts: list[str]) -> Tokens:
    return [encoding.ids for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False)]


def _logistic_regression(given: Tokens, asked: Tokens, task: Task) -> float:
    """Accuracy of TF-IDF over token 1- and 2-grams, hashed so that every vocabulary has as many columns."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        HashingVectorizer(analyzer=_grams, n_features=HASHED, alternate_sign=False, norm=None),
        TfidfTransformer(sublinear_tf=True),
        LogisticRegression(C=REGULARIZATION, max_iter=300),
    )
    return float((model.fit(given, task.known).predict(asked) == task.wanted).mean())


def _grams(ids: Sequence[int]) -> list[str]:
    return [*map(str, ids), *(f"{one} {other}" for one, other in pairwise(ids))]


def _embeddings(given: Tokens, asked: Tokens, task: Task, entries: int, seed: int) -> float:
    """Accuracy of a linear layer over the mean of a text's embeddings."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    torch.manual_seed(seed)
    bag, head = torch.nn.EmbeddingBag(entries, WIDTH), torch.nn.Linear(WIDTH, 1)
    optimizer = torch.optim.Adam([*bag.parameters(), *head.parameters()], LEARNING_RATE)
    answers = torch.from_numpy(task.known).float()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(given)).split(BATCH):  # type: ignore[no-untyped-call]
            loss = binary_cross_entropy_with_logits(head(bag(*_flat([given[index] for index in chosen]))).squeeze(1), answers[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        guesses: Any = head(bag(*_flat(asked))).squeeze(1).numpy() > 0
    return float((guesses == task.wanted).mean())


def _flat(texts: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of all texts in a row, and where each text's begin."""
    import torch

    lengths = torch.tensor([0, *map(len, texts[:-1])])
    return torch.tensor([token for ids in texts for token in ids]), lengths.cumsum(0)
