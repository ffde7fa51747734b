from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llm_assets.training.initialisation import SPREAD, bigram_start, cooccurrence_embeddings, read_embeddings

OPENING, CLOSING = 0, 1
FOOD, PLACE = (2, 3), (4, 5)  # tokens that stand in the same places
EATEN, VISITED = (6, 7, 8), (9, 10, 11)
UNSEEN, VOCABULARY = 12, 13


def stream() -> np.ndarray:
    rng = np.random.default_rng(0)
    documents = []
    for number in range(400):
        names, company = (FOOD, EATEN) if number % 2 else (PLACE, VISITED)
        documents += [OPENING, rng.choice(company), rng.choice(names), rng.choice(company), rng.choice(company), CLOSING]
    return np.array(documents, np.uint16)


def cosine(embeddings: np.ndarray, one: int, other: int) -> float:
    pair = embeddings[[one, other]] / np.linalg.norm(embeddings[[one, other]], axis=1, keepdims=True)
    return float(pair[0] @ pair[1])


def test_tokens_in_the_same_company_start_together() -> None:
    found = cooccurrence_embeddings(stream(), VOCABULARY, 6, OPENING, seed=3)
    assert found.shape == (VOCABULARY, 6) and found.dtype == np.float32
    assert cosine(found, *FOOD) > 0.9 and cosine(found, *PLACE) > 0.9
    assert cosine(found, FOOD[0], PLACE[0]) < 0.5
    assert found[:UNSEEN].std() == pytest.approx(SPREAD, rel=0.01) and 0 < found[UNSEEN].std() < 3 * SPREAD
    assert (found == cooccurrence_embeddings(stream(), VOCABULARY, 6, OPENING, seed=3)).all()


def test_neighbours_are_counted_within_a_document() -> None:
    documents = np.split(stream(), np.flatnonzero(stream() == OPENING)[1:])
    backwards = np.concatenate(documents[::-1])
    one, other = (cooccurrence_embeddings(tokens, VOCABULARY, 6, OPENING, 0)[:UNSEEN] for tokens in (stream(), backwards))
    assert np.allclose(one, other, atol=1e-6)  # what stands before a document changes nothing


def test_tokens_without_company_are_no_trouble() -> None:
    assert np.isfinite(cooccurrence_embeddings(np.array([OPENING] * 50, np.uint16), VOCABULARY, 6, OPENING, 0)).all()


def test_a_vocabulary_smaller_than_the_model_is_wide() -> None:
    assert cooccurrence_embeddings(stream(), VOCABULARY, 32, OPENING, 0).shape == (VOCABULARY, 32)


def test_what_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_embeddings(tmp_path / "objects.npy")


def test_a_decoder_starts_as_the_discounted_bigram_model() -> None:
    """Of a pair seen n times after a token seen N times with k kinds of followers: (n - .75) / N + .75 k / N times the follower's share."""
    text, vocabulary, width = stream(), VOCABULARY, 16
    embeddings, head = bigram_start(text, vocabulary, width, OPENING, 0)
    assert embeddings.shape == head.shape == (vocabulary, width)
    assert np.allclose((embeddings**2).mean(1), 1, atol=1e-4)  # so the norm before the head leaves them as they are
    logits = embeddings.astype(float) @ head.T.astype(float)
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pairs = [(int(one), int(other)) for one, other in pairwise(text) if other != OPENING]
    second = np.array([other for _, other in pairs])
    for token in (FOOD[0], EATEN[1]):
        after = np.bincount([other for one, other in pairs if one == token], minlength=vocabulary)
        share = (np.bincount(second, minlength=vocabulary) + 0.5) / (len(second) + 0.5 * vocabulary)
        expected = (np.maximum(after - 0.75, 0) + 0.75 * (after > 0).sum() * share) / after.sum()
        assert np.allclose(found[token], expected, atol=2e-3), token
    assert (bigram_start(text, vocabulary, width, OPENING, 0)[0] == embeddings).all()


@pytest.mark.parametrize("seed", [3, 13, 17, 20])
def test_the_token_with_the_longest_row_is_a_number_too(seed: int) -> None:
    """Nothing is left to fill its row up with, and in these texts rounding makes that less than nothing."""
    text = np.random.default_rng(seed).integers(0, 40, 2000)
    embeddings, _ = bigram_start(text, 40, 16, OPENING, 0)
    assert np.isfinite(embeddings).all() and np.allclose((embeddings**2).mean(1), 1, atol=1e-4)
