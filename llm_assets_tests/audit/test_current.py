from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.audit.current import ENTRY, FINGERPRINT, TRIAL, NothingUsableError, current_artifact, newest_usable
from llm_assets.store import home as home_module
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict

from .conftest import commit

FINE = Verdict(check="fine", passed=True, description="ok")
BAD = Verdict(check="strict", passed=False, description="3 rows lost")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def state(instance: dg.DagsterInstance, link: str, **metadata: object) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(["c", link], metadata=metadata))


def judged(store: Store, text: str, verdict: Verdict = FINE) -> Artifact:
    artifact = commit(store, "tokens", text=text)
    store.judge(artifact, [verdict])
    return artifact


def test_the_newest_that_passed_and_is_no_trial(store: Store, instance: dg.DagsterInstance) -> None:
    for text, verdict, trial in (("old", FINE, False), ("good", FINE, False), ("tried", FINE, True), ("bad", BAD, False)):
        state(instance, "tokens", **{FINGERPRINT: judged(store, text, verdict).fingerprint, TRIAL: trial})
    usable = newest_usable(instance, store, "c", "tokens")
    assert isinstance(usable.value, Artifact)
    assert usable.value.path("a.txt").read_text() == "good"
    assert usable.data_version == usable.value.data_version


def test_nothing_usable_says_why_and_what_to_do(store: Store, instance: dg.DagsterInstance) -> None:
    with pytest.raises(NothingUsableError, match=r"never materialized.*llm-assets run c --select tokens"):
        newest_usable(instance, store, "c", "tokens")
    state(instance, "tokens", **{FINGERPRINT: judged(store, "bad", BAD).fingerprint})
    with pytest.raises(NothingUsableError, match="strict: 3 rows lost"):
        newest_usable(instance, store, "c", "tokens")


def test_a_run_takes_what_it_made_itself_even_as_a_trial(store: Store, instance: dg.DagsterInstance) -> None:
    tried, newer = judged(store, "tried"), judged(store, "newer")

    @dg.asset(key=["c", "tokens"])
    def tokens() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={FINGERPRINT: tried.fingerprint, TRIAL: True})

    run = dg.materialize([tokens], instance=instance).run_id
    state(instance, "tokens", **{FINGERPRINT: newer.fingerprint})
    assert newest_usable(instance, store, "c", "tokens", {run}).value == tried
    assert newest_usable(instance, store, "c", "tokens").value == newer


def test_an_act_is_its_journal_entry_and_a_failed_one_is_passed_over(store: Store, instance: dg.DagsterInstance) -> None:
    for number, verdict in enumerate((FINE, BAD)):
        entry = {"record": {"number": number}, "data_version": str(number), "verdicts": [verdict.model_dump(mode="json")]}
        state(instance, "scorecard", **{ENTRY: store.journal("c", "scorecard").append(entry)["at"]})
    usable = newest_usable(instance, store, "c", "scorecard")
    assert (usable.value, usable.data_version) == ({"number": 0}, "0")


def test_the_chains_own_root_is_opened(tmp_path: Path, remote: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "prepare_environment", lambda: tmp_path)
    monkeypatch.setattr(dg.DagsterInstance, "get", staticmethod(lambda: nullcontext(instance)))
    state(instance, "tokens", **{FINGERPRINT: judged(remote, "far").fingerprint})
    assert current_artifact("c", "tokens", f"memory://{tmp_path.name}").path("a.txt").read_text() == "far"
    with pytest.raises(NothingUsableError, match=r"no tokens .* in .*artifacts"):
        current_artifact("c", "tokens")
