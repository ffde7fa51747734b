"""The chains of all tasks: one graph, links told apart by their variant."""

from __future__ import annotations

import pytest

from llm_assets.links.chain import EVERY, GENERATION, LINKS, TASKS, link_of, upstream, without
from llm_assets.links.link import Link


@pytest.mark.parametrize("task", TASKS)
def test_each_link_comes_after_its_inputs_and_every_task_has_the_same_names(task: str) -> None:
    made = [link.name for link in TASKS[task]]
    assert made == [name for name, link in LINKS.items() if name in made or not link.optional]
    for place, link in enumerate(TASKS[task]):
        assert set(link.inputs) <= set(made[:place]), link.identity


@pytest.mark.parametrize("link", EVERY, ids=lambda link: link.identity)
def test_variants_of_a_name_share_what_is_asked_of_the_name_alone(link: Link) -> None:
    named = LINKS[link.name]
    assert (link.stage, link.act, link.trained) == (named.stage, named.act, named.trained)
    assert link_of(link.name, link.variant) is link


def test_no_two_links_share_an_identity() -> None:
    assert len({link.identity for link in EVERY}) == len(EVERY) > len(LINKS)
    assert link_of("tokens", "no such variant") is None


def test_upstream_goes_by_the_chain_that_is_asked_of() -> None:
    assert "tokenizer" in upstream("quantized_model", TASKS["generation"]) and "scorecard" not in upstream("quantized_model", TASKS["generation"])


OPTIONAL = ["aligned_model", "task_adapters"]


def test_without_an_optional_link_what_names_it_is_made_from_the_others() -> None:
    plain, whole = ({link.name: link for link in without(GENERATION, absent)} for absent in (OPTIONAL, []))
    assert [link.name for link in GENERATION if link.optional] == OPTIONAL and not plain.keys() & set(OPTIONAL)
    assert plain["quantized_model"].inputs == ("finetuned_model", "evaluation_sets", "labelled_examples")
    assert plain["tokens"] == whole["tokens"]
    assert {*OPTIONAL, "labelled_examples"} <= upstream("quantized_model", whole.values())
