from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from llm_assets.audit.plan import Step, current_fingerprints, plan
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.making import make
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict

from .conftest import break_manifest, commit


class Text(Section):
    text: str = "a"


def write(bench: Bench, config: Text, **inputs: object) -> Made:
    (bench.directory / "a.txt").write_text(config.text)
    return Made({})


def judge(outcome: object, inputs: Mapping[str, object]) -> Verdict:
    return Verdict(check="fine", passed=True, description="ok")


def link(name: str, *inputs: str, act: bool = False) -> Link:
    checks = () if act else (Check("fine", "", judge),)
    return Link(name, 1, write, Text, inputs, "corpus", "data-engineering", (), checks, act=act)


CHAIN = (link("devices", act=True), link("corpus"), link("tokens", "corpus"), link("aside"), link("model", "tokens", "devices"))
SECTIONS: dict[str, Section] = {each.name: Text() for each in CHAIN}


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    artifacts: dict[str, Artifact] = {}
    for each in CHAIN:
        if not each.act:
            inputs = {name: artifacts[name] for name in each.inputs if name in artifacts}
            artifacts[each.name] = make(store, each, Text(), inputs, seed=0, launch=lambda *_: None).artifact
    return artifacts


def steps(store: Store, **changes: str) -> dict[str, Step]:
    return {step.link: step for step in plan(store, CHAIN, SECTIONS | {name: Text(text=text) for name, text in changes.items()}, 0)}


def states(found: Mapping[str, Step]) -> list[str]:
    return [found[each.name].state for each in CHAIN]


def test_nothing_was_made(store: Store) -> None:
    found = steps(store)
    assert states(found) == ["act", "make", "maybe", "make", "maybe"]
    assert found["corpus"].why == "never made" and found["corpus"].seconds is None
    assert found["tokens"].why == "corpus would be made anew"


def test_all_stands(store: Store, made: dict[str, Artifact]) -> None:
    found = steps(store)
    assert states(found) == ["act", "reuse", "reuse", "reuse", "reuse"]
    assert {name: step.fingerprint for name, step in found.items() if step.fingerprint} == {name: each.fingerprint for name, each in made.items()}
    assert found["model"].size == 1


def test_a_changed_setting_is_named_and_what_follows_is_open(store: Store, made: dict[str, Artifact]) -> None:
    found = steps(store, tokens="bb")
    assert states(found) == ["act", "reuse", "make", "reuse", "maybe"]
    assert found["tokens"].why == "config.text: a -> bb"
    assert found["tokens"].seconds == made["tokens"].manifest.seconds
    assert current_fingerprints(store, CHAIN, SECTIONS | {"tokens": Text(text="bb")}, 0).keys() == {"corpus", "aside"}


def test_what_failed_a_blocking_check_is_refused_and_named_downstream(store: Store, made: dict[str, Artifact]) -> None:
    store.judge(made["corpus"], [Verdict(check="fine", passed=False, description="3 rows lost")])
    found = steps(store)
    assert states(found) == ["act", "refused", "maybe", "reuse", "maybe"]
    assert "fine: 3 rows lost" in found["corpus"].why
    assert found["tokens"].why == found["model"].why == "corpus is refused"
    assert current_fingerprints(store, CHAIN, SECTIONS, 0)["corpus"] == made["corpus"].fingerprint
    make(store, replace(CHAIN[1]), Text(), {}, seed=0, launch=lambda *_: None)
    assert states(steps(store)) == ["act", "reuse", "reuse", "reuse", "reuse"]


def test_a_failed_check_that_only_warns_refuses_nothing(store: Store, made: dict[str, Artifact]) -> None:
    store.judge(made["corpus"], [Verdict(check="fine", passed=False, blocking=False, description="meh")])
    assert steps(store)["corpus"].state == "reuse"


def test_damage_refuses_its_own_link_and_stops_no_other(store: Store, made: dict[str, Artifact]) -> None:
    break_manifest(made["tokens"])
    break_manifest(commit(store, "aside", text="old"))
    found = steps(store)
    assert states(found) == ["act", "reuse", "refused", "reuse", "maybe"]
    assert "manifest.json is damaged" in found["tokens"].why
