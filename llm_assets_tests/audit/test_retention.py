from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llm_assets.audit.retention import collect, find_garbage
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import proven, write_desired
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

from .conftest import LONG_AGO, aged, break_manifest, commit


def release(store: Store, chain: str, number: int, model: Artifact, state: str = "champion") -> dict[str, Any]:
    made = {"release": f"{chain}-{number}", "number": number, "quantized_model": model.fingerprint, "directory": "", "files": {}, "state": state}
    store.journal(chain, "release").append({"record": made})
    return made


def model_with_corpus(store: Store, name: str) -> tuple[Artifact, Artifact]:
    corpus = commit(store, "corpus", text=name)
    return commit(store, "quantized_model", corpus, text=name), corpus


def garbage_of(store: Store, *current: Artifact, keep_days: float = 7) -> set[str]:
    fingerprints = {"loaded": {artifact.link: artifact.fingerprint for artifact in current}}
    return {manifest.fingerprint for manifest in find_garbage(store, fingerprints, keep_days).artifacts}


def test_champion_and_previous_of_every_chain_stand_with_all_upstream(store: Store) -> None:
    older, previous, champion = (model_with_corpus(store, name) for name in ("older", "previous", "champion"))
    for number, (model, _) in enumerate((older, previous, champion), start=1):
        release(store, "chain-without-yaml", number, model)
    found = find_garbage(store, {}, keep_days=7)
    assert {manifest.fingerprint for manifest in found.artifacts} == {artifact.fingerprint for artifact in older}
    assert found.kept[("corpus", previous[1].fingerprint)] == "previous release of chain-without-yaml"
    assert found.kept[("corpus", champion[1].fingerprint)] == "champion release of chain-without-yaml"


def test_what_waits_for_approval_and_what_is_served_stands(store: Store) -> None:
    served, between, previous, champion, waiting = (
        model_with_corpus(store, name) for name in ("served", "between", "previous", "champion", "waiting")
    )
    write_desired(store.home, "reviews", release(store, "reviews", 1, served[0]))
    for number, (model, _) in enumerate((between, previous, champion), start=2):
        made = release(store, "reviews", number, model)
    release(store, "reviews", 5, waiting[0], state="candidate")
    write_desired(store.home, "reviews", made, proven(store.home, "reviews"), Plan())  # a canary that no gateway has begun
    found = find_garbage(store, {}, keep_days=7)
    assert {manifest.fingerprint for manifest in found.artifacts} == {artifact.fingerprint for artifact in between}
    assert found.kept[("corpus", waiting[1].fingerprint)] == "candidate release of reviews"
    assert found.kept[("corpus", served[1].fingerprint)] == "served release of reviews"


def test_settings_and_youth_keep(store: Store) -> None:
    used, corpus = model_with_corpus(store, "used")
    young = commit(store, "tokens", started=datetime.now(UTC).isoformat())
    lone = commit(store, "tokens", text="lone")
    assert garbage_of(store, used) == {lone.fingerprint}
    assert garbage_of(store, used, keep_days=0) == {lone.fingerprint, young.fingerprint}
    assert garbage_of(store) == {lone.fingerprint, used.fingerprint, corpus.fingerprint}


def test_an_unreadable_stranger_stops_nothing(store: Store) -> None:
    lone, stranger = commit(store, "tokens", text="lone"), commit(store, "tokens", text="stranger")
    break_manifest(stranger)
    assert garbage_of(store) == {lone.fingerprint}


def test_an_unreadable_ancestor_of_a_release_keeps_what_it_may_stand_on(store: Store) -> None:
    model, corpus = model_with_corpus(store, "champion")
    release(store, "reviews", 1, model)
    break_manifest(model)
    found = find_garbage(store, {}, keep_days=7)
    assert found.artifacts == []
    assert "verify --discard" in found.kept[("corpus", corpus.fingerprint)]


def test_collect_deletes_artifacts_and_work(store: Store) -> None:
    lone = commit(store, "tokens")
    work = abandoned(store, "f1")
    trace = aged(store.home / "work" / "progress" / "r.jsonl")
    collect(store, find_garbage(store, {}, keep_days=7))
    assert store.find("tokens", lone.fingerprint) is None
    assert not work.exists() and not trace.exists()


def abandoned(store: Store, name: str) -> Path:
    work = store.home / "work" / name
    (work / "scratch").mkdir(parents=True)
    (work / "recipe.json").write_text("{}")
    os.utime(work, (LONG_AGO, LONG_AGO))
    return work


def test_work_goes_unless_somebody_holds_its_lock(store: Store) -> None:
    left, held = abandoned(store, "left"), abandoned(store, "held")
    with store.lock("held"):
        found = find_garbage(store, {}, keep_days=7)
    assert found.work == [left]
    with store.lock("left"):  # taken up again between listing and deleting
        collect(store, found)
    assert left.exists() and held.exists()


@pytest.mark.parametrize("folder", ["work", "work/runs"])
def test_old_free_locks_without_work_go(store: Store, folder: str) -> None:
    free, held, young, working = (store.home / folder / f"{name}.lock" for name in ("free", "held", "young", "working"))
    for path in (free, held, working):
        aged(path)
    young.write_text("")
    (store.home / folder / "working").mkdir()
    with FileLock(held):
        found = find_garbage(store, {}, keep_days=7)
    assert found.work == [free]
    with FileLock(free):
        collect(store, found)
    assert free.exists()
    collect(store, find_garbage(store, {}, keep_days=7))
    assert not free.exists() and young.exists() and working.exists()


def test_old_files_of_acts_go_but_the_newest_of_each_act(store: Store) -> None:
    acts = store.home / "acts"
    old, newer = aged(acts / "c" / "scorecard" / "r1", True), acts / "c" / "scorecard" / "r2"
    newer.mkdir()
    only = aged(acts / "c" / "release" / "r1", True)
    assert find_garbage(store, {}, keep_days=7).work == [old]
    collect(store, find_garbage(store, {}, keep_days=7))
    assert not old.exists() and newer.exists() and only.exists()


@pytest.mark.parametrize(("keep_days", "gone"), [(7, ["old"]), (60, []), (0, ["old"])])
def test_old_progress_goes_and_what_may_be_followed_stays(store: Store, keep_days: float, gone: list[str]) -> None:
    aged(store.home / "work" / "progress" / "old.jsonl")
    (store.home / "work" / "progress" / "running.jsonl").write_text("{}")
    assert [path.stem for path in find_garbage(store, {}, keep_days).work] == gone


@pytest.mark.parametrize(("keep_days", "gone"), [(7, ["2026-01-01"]), (60, []), (0, ["2026-01-01", "today"])])
def test_old_days_of_openlineage_go(store: Store, keep_days: float, gone: list[str]) -> None:
    """A day is as old as its newest event; no day of a chain is kept for being its last."""
    old = aged(store.home / "openlineage" / "reviews" / "2026-01-01.jsonl")
    today, delivered = old.with_name("today.jsonl"), aged(old.with_name("delivered.json"))
    today.write_text("{}")
    found = find_garbage(store, {}, keep_days)
    assert [path.stem for path in found.work] == gone
    collect(store, found)
    assert [path for path in (old, today) if not path.exists()] == [old.with_name(f"{name}.jsonl") for name in gone] and delivered.exists()
