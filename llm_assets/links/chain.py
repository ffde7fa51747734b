"""The chains: for each task every link in the order in which it can be made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from llm_assets.links import (
    aligned_model,
    assistant_model,
    clean_corpus,
    compute,
    conversations,
    endpoint,
    evaluation_sets,
    finetuned_model,
    generation_scorecard,
    gguf_model,
    labelled_examples,
    pretrained_checkpoint,
    quantized_model,
    raw_corpus,
    release,
    scorecard,
    screened_corpus,
    task_adapters,
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
OF_GENERATION = {link.name: link for link in (conversations.LINK, assistant_model.LINK, gguf_model.LINK, generation_scorecard.LINK)}
AFTER = {finetuned_model.LINK.name: (aligned_model.LINK, task_adapters.LINK)}  # what only a chain that generates may have, and after which link
GENERATION: tuple[Link, ...] = tuple(  # but for those the same graph
    made for link in CHAIN for made in (OF_GENERATION.get(link.name, link), *AFTER.get(link.name, ()))
)
TASKS: dict[str, tuple[Link, ...]] = {"classification": CHAIN, "generation": GENERATION}
EVERY: tuple[Link, ...] = tuple(dict.fromkeys(link for chain in TASKS.values() for link in chain))
LINKS: dict[str, Link] = {link.name: link for link in (*GENERATION, *CHAIN)}  # what all variants of a name share: stage, role, act, trained
AUDITED = ("release", "endpoint")  # after which the check `lineage` holds Dagster's graph against the store, all the way up


def without(chain: Iterable[Link], absent: Collection[str]) -> tuple[Link, ...]:
    """A chain that lacks some of its optional links: what names them among its inputs is made from the others alone."""
    return tuple(replace(link, inputs=tuple(name for name in link.inputs if name not in absent)) for link in chain if link.name not in absent)


def link_of(name: str, variant: str = "") -> Link | None:
    """The link of that name and variant, None where there is none."""
    return next((link for link in EVERY if (link.name, link.variant) == (name, variant)), None)


def upstream(name: str, chain: Iterable[Link]) -> set[str]:
    """The names of every link of ``chain`` that ``name`` stands on, itself included."""
    inputs = {link.name: link.inputs for link in chain}
    waiting, found = [name], set[str]()
    while waiting:
        found.add(one := waiting.pop())
        waiting += inputs[one]
    return found
