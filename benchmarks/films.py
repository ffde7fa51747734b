"""The chain imdb against a baseline that knows words, on its own split."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.result import Result

CHAIN = "imdb"
PUBLISHED = (0.9075, 0.852)  # by the project's source articles


def imdb(preset: str, home: Path) -> Result:
    """Test accuracy of the chain imdb's models in --home against TF-IDF + logistic regression of words and pairs of words, fitted now.

    On the same labelled examples and test documents; the articles' figures are printed beside them.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.evaluation.baselines import TFIDF_WORDS, WordTfidfLogisticRegression
    from llm_assets.evaluation.predictions import Examples
    from llm_assets.evaluation.quality import accuracy

    model, quantized, examples, sets = (
        llm_assets.open(CHAIN, link) for link in ("finetuned_model", "quantized_model", "labelled_examples", "evaluation_sets")
    )
    known = examples.table("train.parquet", ["text", "label"]).to_pydict()
    test = Examples.read(sets).of("test")
    words = WordTfidfLogisticRegression.fit(known["text"], known["label"])
    guesses = [words.labels[max(range(len(row)), key=row.__getitem__)] for row in words.classify(test.texts)]
    figures = {name: found["test"]["accuracy"] for name, found in (model.metrics["models"] | quantized.metrics["models"]).items()}
    figures[TFIDF_WORDS] = accuracy(test.labels, guesses)
    print(f"{len(known['text']):,} reviews to learn from, {len(test.texts):,} to be judged on; one seed")
    for name, figure in sorted(figures.items(), key=lambda item: item[1]):
        print(f"  {name:<34}{figure:.4f}")
    print(f"  the articles: {PUBLISHED[0]} and {PUBLISHED[1]}")
    best = max(figure for name, figure in figures.items() if name not in ("finetuned", "quantized"))
    target = f"above the best baseline's {best:.4f} and above {PUBLISHED[0]}"
    return Result("imdb", round(figures["quantized"], 4), "test accuracy of int8", target, figures["quantized"] > max(best, *PUBLISHED))
