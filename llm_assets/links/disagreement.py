"""How often a candidate and the champion will answer differently, foretold on two kinds of text.

The frozen test documents say it of what the chain learned from first, the newest texts of the request log of what users send now. Where
users have changed, the two are far apart: a model that learned the new kind of text rightly answers it otherwise than the one before it.
A canary's traffic is taken for a mixture, a share w like the log and the rest like the test documents. It differs in w a + (1 - w) b,
which for any w is at most the larger of a and b, so the larger is what the canary is held against. Nobody knows whether the champion or
the candidate is right about the log: where they differ on more than half of it, the test documents alone are what a gate can answer for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_assets.evaluation.quality import accuracy
from llm_assets.links.link import Office
from llm_assets.serving.engine import OnnxClassifier, decided
from llm_assets.serving.request_log import newest_texts
from llm_assets.store.artifact import Artifact

TEXTS = 500  # newest of the log, as many as a look for drift takes
# Fewer say too little. The standard error of a share of 100 texts is 5 points at most: the 10 that the endpoint allows beyond are two of them.
MINIMUM = 100
MOST = 0.5  # of the log, foretold from it: beyond that a canary that expected it would expect nearly anything


def predicted(office: Office, candidate: Artifact, champion: Artifact, on_test: float, documents: int) -> dict[str, Any]:
    """``disagreement``, what a canary is to expect, with both shares that it is the larger of, and in words as ``prediction``.

    ``on_test`` is the share of ``documents`` test documents that the two answer differently. Both are asked the newest texts that the
    chain's request log holds, masked as they stand there. With fewer than ``MINIMUM``, where a model cannot be asked, or where they differ
    on more than ``MOST`` of them, the test documents alone count, and ``prediction`` says why.
    """
    texts = newest_texts(office.home, office.chain, TEXTS)
    tested = f"{on_test:.1%} of {documents} test documents"
    alone = {"disagreement": on_test, "disagreement_on_test": on_test, "disagreement_on_traffic": None, "traffic_texts": len(texts)}
    if len(texts) < MINIMUM:
        return {**alone, "prediction": f"{tested}; the request log holds {len(texts)} texts, {MINIMUM} are needed"}
    try:
        mine, theirs = (_answers(model, texts) for model in (candidate, champion))
    except Exception as error:  # ONNX Runtime's errors share no base class; whether a model can be served is asked elsewhere
        return {**alone, "prediction": f"{tested}; the texts of the request log could not be asked: {error}"}
    on_traffic = 1 - accuracy(mine, theirs)
    if on_traffic > MOST:
        said = f"{tested}; on the newest {len(texts)} texts of the request log it is {on_traffic:.1%}, more than a gate foretells ({MOST:.0%})"
        return {**alone, "disagreement_on_traffic": on_traffic, "prediction": said}
    found = {"disagreement": max(on_test, on_traffic), "disagreement_on_traffic": on_traffic}
    return {**alone, **found, "prediction": f"{on_traffic:.1%} of the newest {len(texts)} texts of the request log, {tested}"}


def _answers(model: Artifact, texts: Sequence[str]) -> list[str]:
    engine = OnnxClassifier(model.directory)
    return [decided(engine.problem, row, engine.labels) for row in engine.classify(texts)]
