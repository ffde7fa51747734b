"""The chain: every link in the order in which it can be made."""

from __future__ import annotations

from llm_assets.links import (
    clean_corpus,
    compute,
    endpoint,
    evaluation_sets,
    finetuned_model,
    labelled_examples,
    pretrained_checkpoint,
    quantized_model,
    raw_corpus,
    release,
    scorecard,
    screened_corpus,
    tokenizer,
    tokens,
)
from llm_assets.links.link import Link

CHAIN: tuple[Link, ...] = (
    compute.LINK,
    raw_corpus.LINK,
    screened_corpus.LINK,
    evaluation_sets.LINK,
    clean_corpus.LINK,
    tokenizer.LINK,
    tokens.LINK,
    labelled_examples.LINK,
    pretrained_checkpoint.LINK,
    finetuned_model.LINK,
    quantized_model.LINK,
    scorecard.LINK,
    release.LINK,
    endpoint.LINK,
)
LINKS: dict[str, Link] = {link.name: link for link in CHAIN}


def upstream(name: str) -> set[str]:
    """Every link that ``name`` stands on, itself included."""
    return {name}.union(*(upstream(parent) for parent in LINKS[name].inputs))
