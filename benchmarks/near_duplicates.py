"""Near-duplicates against rensa and datatrove, and what a naive split of the reviews would have claimed."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import peers
from benchmarks.material import batches, labelled, megabytes, reviews
from benchmarks.result import Result
from benchmarks.timing import timed, use_cores
from llm_assets.corpus.codepoints import letters
from llm_assets.corpus.documents import text_key
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FALSE = 0.5  # two texts that met and have a smaller Jaccard similarity of trigrams are no near-duplicates
WANTED = NearDuplicates().similarity


def near_duplicates(preset: str, home: Path) -> Result:
    """Near-duplicates end to end against raw rensa signatures of the same documents; recall and precision beside datatrove's."""
    import rensa

    use_cores(1)
    texts = list(dict.fromkeys(reviews()))
    size = megabytes(texts)
    letters(texts[:10])
    with tempfile.TemporaryDirectory() as scratch:
        cut = list(batches(texts))
        _, ours = timed(lambda: clusters(cut, NearDuplicates(), Path(scratch)))
        shingles = [_trigrams(text_key(text)) for text in texts]
        hashed = rensa.RMinHash.digest_matrix_from_token_sets
        _, raw = timed(lambda: hashed(shingles, num_perm=128, seed=0).to_rows())
        _, listed = timed(lambda: hashed([_trigrams(text_key(text)) for text in texts], num_perm=128, seed=0).to_rows())
        print(f"{len(texts):,} different reviews, {size:.1f} MB, one core")
        print(f"ours end to end {size / ours:.2f} MB/s; rensa's signatures {size / raw:.2f} MB/s, with its lists of trigrams {size / listed:.2f}")
        _planted(texts, Path(scratch))
    return Result("near_duplicates", round(raw / ours, 3), "of raw rensa signatures", "at least 0.5", raw / ours >= 0.5)


def leak(preset: str, home: Path) -> Result:
    """What a random split of the raw lines would claim for TF-IDF and logistic regression, against one that keeps copies together."""
    import numpy as np

    from llm_assets.evaluation.baselines import TfidfLogisticRegression

    raw = labelled()
    naive = np.random.default_rng(0).random(len(raw)) < 0.1
    apart = split([text for text, _ in raw])
    figures = {}
    for name, train, test in (("raw lines at random", ~naive, naive), ("one line a cluster", apart.train, apart.test)):
        model = TfidfLogisticRegression.fit([raw[i][0] for i in np.flatnonzero(train)], [raw[i][1] for i in np.flatnonzero(train)])
        texts, labels = [raw[i][0] for i in np.flatnonzero(test)], [raw[i][1] for i in np.flatnonzero(test)]
        figures[name] = float(np.mean([guess == label for guess, label in zip(_guesses(model, texts), labels, strict=True)]))
        print(f"{name:<22} train {int(train.sum()):>6,}  test {len(labels):>5,}  accuracy {figures[name]:.4f}")
    known = np.isin(apart.cluster[naive], apart.cluster[~naive]).mean()
    print(f"at random, {known:.1%} of the test lines stand among the training lines too, or nearly")
    false = 100 * (figures["raw lines at random"] - figures["one line a cluster"])
    return Result("leak", round(false, 2), "points of accuracy that are not there", "shown, not reached for", false > 0)


class Split(NamedTuple):
    """Which texts to learn from and which to be judged on, one of each cluster of near-duplicates; all of shape [texts]."""

    cluster: NDArray[np.int64]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def split(texts: Sequence[str]) -> Split:
    """Draw a tenth of the clusters for the test set."""
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        cluster, _ = clusters(batches(texts), NearDuplicates(), Path(scratch))
    kept = cluster == np.arange(len(texts))  # a cluster is named by its first text
    drawn = np.random.default_rng(0).random(len(texts))[cluster] < 0.1
    return Split(cluster, ~drawn & kept, drawn & kept)


def _guesses(model: Any, texts: Sequence[str]) -> list[str]:
    import numpy as np

    return [model.labels[place] for place in np.asarray(model.classify(texts)).argmax(axis=1)]


def _planted(texts: Sequence[str], scratch: Path) -> None:
    """Print recall by true similarity over planted pairs, and precision over all pairs that met, ours beside datatrove's."""
    originals, edited = _plant(texts)
    both = [*originals, *edited]
    shingles = [set(_trigrams(text_key(text))) for text in both]
    found = {
        "ours": clusters([originals, edited], NearDuplicates(), scratch)[0].tolist(),
        "datatrove": peers.clusters(both, peers.characters(), scratch / "datatrove"),
    }
    pairs = [(place, place + len(originals)) for place in range(len(originals))]
    tenths: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for pair in pairs:
        tenths[int(10 * _similarity(shingles, *pair))].append(pair)
    print(f"{'planted pairs that met':<30}" + "".join(f"{name:>12}" for name in found) + "    of")
    for tenth, alike in sorted(tenths.items()):
        row = "".join(f"{_recall(cluster, alike):>12.3f}" for cluster in found.values())
        print(f"{f'similarity {tenth / 10:.1f} to {tenth / 10 + 0.1:.1f}':<30}{row}{len(alike):>6}")
    alike = [pair for pair in pairs if _similarity(shingles, *pair) >= WANTED]
    for name, cluster in found.items():
        met = [_similarity(shingles, one, other) for one, other in _together(cluster)]
        precision, strict = (sum(one >= least for one in met) / len(met) for least in (FALSE, WANTED))
        print(f"{name}: {_recall(cluster, alike):.4f} of the {len(alike):,} planted pairs of similarity {WANTED} or more met")
        print(f"  of all {len(met):,} pairs that met, planted or not, {precision:.4f} have at least {FALSE}, {strict:.4f} at least {WANTED}")


def _plant(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """1,500 reviews, and the same with up to a twelfth of their characters exchanged."""
    rng = random.Random(0)
    originals = [text for text in rng.sample(list(texts), 4000) if len(text_key(text)) >= 30][:1500]
    edited = []
    for text in originals:
        key = list(text_key(text))
        for _ in range(rng.randint(1, max(1, len(key) // 12))):
            key[rng.randrange(len(key))] = rng.choice("天地玄黄宇宙洪荒日月")
        edited.append("".join(key))
    return originals, edited


def _recall(cluster: Sequence[int], pairs: Sequence[tuple[int, int]]) -> float:
    return sum(cluster[one] == cluster[other] for one, other in pairs) / len(pairs)


def _together(cluster: Sequence[int]) -> list[tuple[int, int]]:
    """Every pair of one cluster."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(cluster):
        members[number].append(place)
    return [pair for places in members.values() for pair in combinations(places, 2)]


def _similarity(shingles: Sequence[set[str]], one: int, other: int) -> float:
    """Jaccard, of the trigrams."""
    return len(shingles[one] & shingles[other]) / len(shingles[one] | shingles[other])


def _trigrams(key: str) -> list[str]:
    return [key[place : place + 3] for place in range(len(key) - 2)] or [key]
