"""Running a link: what is judged again, what a changing source does, and acts that take turns."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_assets.audit.lineage import ancestors, manifests_by_name
from llm_assets.links.link import Acted, Bench, Check, Link, Made, Office, Section
from llm_assets.links.making import Outcome, SourceChangedError, act, make
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def write(bench: Bench, config: Section) -> Made:
    (bench.directory / "a.txt").write_text("a")
    return Made({})


def check(name: str, passes: bool = True, blocking: bool = True, calls: list[str] | None = None) -> Check:
    def judge(outcome: object, inputs: Mapping[str, object]) -> Verdict:
        if calls is not None:
            calls.append(name)
        return Verdict(check=name, passed=passes, description="planted")

    return Check(name, "", judge, blocking)


def link_of(*checks: Check, **changes: Any) -> Link:
    link = Link("words", 1, write, Section, (), "corpus", "data-engineering", ("python",), checks)
    return replace(link, **changes)


def run(store: Store, link: Link) -> Outcome:
    return make(store, link, Section(), {}, seed=0, launch=lambda *_: pytest.fail("starts no process"))


def test_verdicts_that_passed_are_given_once(store: Store) -> None:
    calls: list[str] = []
    for _ in range(2):
        outcome = run(store, link_of(check("fine", calls=calls), check("warns", passes=False, blocking=False, calls=calls)))
    assert outcome.reused
    assert calls == ["fine", "warns"]


@pytest.mark.parametrize(
    "later",
    [[check("fine"), check("new")], [check("renamed")], [check("fine", blocking=False)], []],
    ids=["added", "renamed", "blocks no more", "removed"],
)
def test_other_checks_judge_what_stands_anew(store: Store, later: list[Check]) -> None:
    run(store, link_of(check("fine")))
    outcome = run(store, link_of(*later))
    assert outcome.reused
    kept = store.verdicts("words", outcome.artifact.fingerprint)
    assert kept == outcome.verdicts
    assert [(verdict.check, verdict.blocking) for verdict in kept] == [(new.name, new.blocking) for new in later]


def test_a_mended_check_passes_what_it_refused(store: Store) -> None:
    refused = run(store, link_of(check("strict", passes=False)))
    mended = run(store, link_of(check("strict")))
    assert mended.reused and mended.artifact == refused.artifact
    store.refuse_failed(mended.artifact)


def test_a_source_that_changes_while_it_is_read_commits_nothing(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("one")

    def read(bench: Bench, config: Section) -> Made:
        (bench.directory / "a.txt").write_text(source.read_text())
        source.write_text("two")
        return Made({})

    link = link_of(make=read, observe=lambda config: {"text": source.read_text()})
    with pytest.raises(SourceChangedError, match=r"words: a source changed.*observed\.text: one -> two.*run again"):
        run(store, link)
    assert list(store.names()) == []
    assert run(store, link).artifact.path("a.txt").read_text() == "two"


def in_threads(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_two_runs_of_an_act_take_turns(store: Store) -> None:
    def number(office: Office, config: Section) -> Acted:
        taken = len(list(office.journal.entries()))
        time.sleep(0.3)
        return Acted({"number": taken + 1}, str(taken + 1))

    link = link_of(make=number, act=True)
    in_threads(*(lambda run=run: act(store, link, Section(), {}, chain="c", run_id=run, trial=False) for run in ("r1", "r2")))
    assert [entry["record"]["number"] for entry in store.journal("c", "words").entries()] == [1, 2]


def test_an_artifact_that_the_config_names_is_among_the_inputs_of_the_manifest(store: Store) -> None:
    base = run(store, link_of()).artifact
    tuned = replace(link_of(), name="tuned")
    outcome = make(store, tuned, Section(), {}, seed=0, launch=lambda *_: None, references={"base/words": base})
    entry = outcome.artifact.manifest.inputs["base/words"]
    assert (entry.link, entry.fingerprint, entry.data_version) == ("words", base.fingerprint, base.data_version)
    assert ancestors(manifests_by_name(store), [("tuned", outcome.artifact.fingerprint)]) >= {("words", base.fingerprint)}


def test_the_machine_has_the_name_that_the_environment_gives_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOST", "somewhere")
    assert run(store, link_of()).artifact.manifest.host == "somewhere"
    monkeypatch.delenv("LLM_ASSETS_HOST")
    assert run(store, link_of(version=2)).artifact.manifest.host == platform.node()
