"""The policy sensor in a Dagster instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.components.llm_chain.automation import chain_job
from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.policy import retraining, state_of
from llm_assets.components.llm_chain.runs import REASON_TAG
from llm_assets.components.llm_chain.spec import PresetError, Settings, with_preset
from llm_assets.corpus.batches import row_key, withdrawals, write_batch
from llm_assets.store.journal import Journal
from llm_assets_tests.components.test_spec import VALUES
from llm_assets_tests.corpus.test_batches import row
from llm_assets_tests.serving.tiny import release

LEARNING = {"labels": ["negative", "positive"], "feedback": {"folder": "feedback/reviews"}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def spec(**policy: object) -> Settings:
    return with_preset({**VALUES, "labelled_examples": LEARNING, "retraining": policy})


def tick(instance: dg.DagsterInstance, chain: Settings, cursor: str | None = None) -> Any:
    sensor = retraining(chain, chain_job(chain))
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=chain_definitions(chain)))


def ran(instance: dg.DagsterInstance, chain: Settings, status: dg.DagsterRunStatus, **fields: Any) -> dg.DagsterRun:
    job = chain_definitions(chain).resolve_job_def("reviews")
    return instance.create_run_for_job(job, status=status, **fields)


def looked(home: Path, drifted: list[str], at: str = "reviews-1") -> None:
    record = {"judged": True, "release": at, "drifted": drifted, "reason": "length differ from the training distribution"}
    Journal(home / "journal" / "reviews" / "drift.jsonl").append({"trial": False, "record": record})


def test_feedback_asks_for_a_run_with_its_reason_and_is_then_old(home: Path, instance: dg.DagsterInstance) -> None:
    chain = spec(feedback=3, documents=0)
    write_batch(home / "feedback" / "reviews", [row(1), row(2)])
    assert "3 newly labelled texts (there are 2)" in tick(instance, chain).skip_message
    write_batch(home / "feedback" / "reviews", [row(3)])
    withdrawals(home / "feedback" / "reviews").append({"rows": [row_key(row(1))], "votes": []})
    assert "3 newly labelled texts (there are 2)" in tick(instance, chain).skip_message
    write_batch(home / "feedback" / "reviews", [row(7)])
    asked = tick(instance, chain)
    (request,) = asked.run_requests
    assert request.tags[REASON_TAG] == "feedback: 3 newly labelled texts"
    assert "(there are 0)" in tick(instance, chain, asked.cursor).skip_message
    write_batch(home / "feedback" / "reviews", [row(4), row(5), row(6)])
    (again,) = tick(instance, chain, asked.cursor).run_requests
    assert again.run_key != request.run_key


def test_drift_seen_since_the_last_run_asks_for_one_with_something_to_learn(home: Path, instance: dg.DagsterInstance) -> None:
    chain = spec(drift=True, documents=0, minimum_interval="1s")
    release(home, 1, chain="reviews")
    looked(home, ["length"])
    assert "something to learn from" in tick(instance, chain).skip_message
    write_batch(home / "feedback" / "reviews", [row(1)])
    (request,) = tick(instance, chain).run_requests
    assert request.tags[REASON_TAG].startswith("drift: length differ from the training distribution")
    ran(instance, chain, dg.DagsterRunStatus.SUCCESS)
    assert "drift, which is not seen" in tick(instance, chain).skip_message  # that look was before the run
    looked(home, [])
    assert "drift, which is not seen" in tick(instance, chain).skip_message


def test_drift_of_a_release_that_has_been_replaced_asks_for_nothing(home: Path, instance: dg.DagsterInstance) -> None:
    chain = spec(drift=True, documents=0, minimum_interval="1s")
    release(home, 1, chain="reviews")
    write_batch(home / "feedback" / "reviews", [row(1)])
    looked(home, ["length"])  # while the run that answers the drift is under way
    assert tick(instance, chain).run_requests
    release(home, 2, chain="reviews")
    assert "drift, which is not seen" in tick(instance, chain).skip_message
    looked(home, ["length"], at="reviews-2")
    assert tick(instance, chain).run_requests


def test_a_run_under_way_and_a_recent_one_are_waited_for_and_the_news_is_kept(home: Path, instance: dg.DagsterInstance) -> None:
    chain = spec(documents=1, minimum_interval="1d")
    inbox = home / "inbox" / "reviews"
    inbox.mkdir(parents=True)
    (inbox / "new.txt").write_text("很好的一本书", encoding="utf-8")
    run = ran(instance, chain, dg.DagsterRunStatus.STARTED)
    waiting = tick(instance, chain)
    assert f"new documents: 1 files in the inbox; but run {run.run_id} is under way" in waiting.skip_message and waiting.cursor is None
    instance.report_run_canceled(run)
    assert "minimum_interval is 1d" in tick(instance, chain).skip_message


def test_only_runs_of_the_whole_chain_count(home: Path, instance: dg.DagsterInstance) -> None:
    chain = spec()
    ran(instance, chain, dg.DagsterRunStatus.SUCCESS, asset_selection=frozenset({dg.AssetKey(["reviews", "scorecard"])}))
    assert state_of(instance, home, chain, {}).last is None
    ran(instance, chain, dg.DagsterRunStatus.FAILURE)
    last = state_of(instance, home, chain, {}).last
    assert last is not None and abs(datetime.now(UTC) - last) < timedelta(minutes=5)


def test_feedback_that_nothing_learns_from_is_an_error_at_load(home: Path) -> None:
    with pytest.raises(ValueError, match=r"set labelled_examples\.feedback\.folder to feedback/<chain>"):
        with_preset({**VALUES, "retraining": {"feedback": 20}})
    with pytest.raises(PresetError, match=r"retraining\.feedback waits for labelled texts"):
        with_preset({**VALUES, "presets": {**VALUES["presets"], "eager": {"retraining": {"feedback": 20}}}})
