"""Releases, rollouts and rollbacks as Dagster shows them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.components.llm_chain import service_events as module
from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.service_events import service_events
from llm_assets.components.llm_chain.spec import Settings, with_preset
from llm_assets.serving.events import append_event
from llm_assets.serving.releases import release_journal, roll_back, standing
from llm_assets.store.store import Store
from llm_assets.tracking.tracker import Tracker
from llm_assets_tests.components.test_spec import VALUES
from llm_assets_tests.serving.tiny import release

ENDPOINT = dg.AssetKey(["reviews", "endpoint"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    return tmp_path


def tick(instance: dg.DagsterInstance, spec: Settings, cursor: str | None) -> tuple[str | None, str | None]:
    """One look of the sensor, its observations stored as the daemon stores them; returns cursor and reason."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=chain_definitions(spec))
    found = service_events(spec).evaluate_tick(context)
    assert not found.run_requests
    for event in found.asset_events:
        instance.report_runless_asset_event(event)
    return found.cursor, found.skip_message


def observed(instance: dg.DagsterInstance) -> list[dg.AssetObservation]:
    """Oldest first."""
    records = instance.fetch_observations(ENDPOINT, limit=100).records
    return [record.event_log_entry.dagster_event.asset_observation_data.asset_observation for record in reversed(records)]


def test_each_entry_of_the_journal_and_each_event_is_observed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored: list[dict[str, str | None]] = []

    def mirror(store: Store, tracker: Tracker, chain: str) -> None:
        mirrored.append(standing(release_journal(store.home, chain)).aliases)

    monkeypatch.setattr(module, "mirror_releases", mirror)
    spec = with_preset(VALUES)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor, reason = tick(instance, spec, None)
        assert cursor is None and reason and "nothing new" in reason
        release(home, 1, chain="reviews")
        release(home, 2, chain="reviews")
        append_event(home, "reviews", "rollout", "reviews-2 answers 5% beside reviews-1", "reviews-2", share=5.0, stage="canary")
        cursor, _ = tick(instance, spec, cursor)
        roll_back(home, "reviews", "reviews-1", by="gateway", note="9 of 10 requests failed", only_from="reviews-2")
        append_event(home, "reviews", "alert", "reviews-2 was rolled back", "reviews-2", errors=9, requests=10)
        cursor, _ = tick(instance, spec, cursor)
        assert tick(instance, spec, cursor)[0] == cursor
        found = observed(instance)
    assert [observation.metadata["kind"].value for observation in found] == ["champion", "champion", "rollout", "champion", "alert"]
    assert found[2].metadata["share"].value == 5.0 and found[2].description == "reviews-2 answers 5% beside reviews-1"
    assert found[3].description == "reviews-1 is the champion again, rolled back from reviews-2 by gateway: 9 of 10 requests failed"
    assert found[3].metadata["rolled_back_from"].value == "reviews-2"
    assert (found[4].metadata["errors"].value, found[4].metadata["release"].value) == (9, "reviews-2")
    assert mirrored[1:3] == [
        {"candidate": "reviews-2", "champion": "reviews-2", "previous": "reviews-1"},
        {"candidate": "reviews-1", "champion": "reviews-1", "previous": None},
    ]
    assert len(mirrored) == 4  # at every look: what failed is tried again, what is in line costs nothing


def test_many_events_follow_look_by_look(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(7):
        append_event(home, "reviews", "alert", f"alert {number}")
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None
        for _ in range(3):
            cursor, _ = tick(instance, with_preset(VALUES), cursor)
        assert [observation.description for observation in observed(instance)] == [f"alert {number}" for number in range(7)]


def test_it_is_on_and_starts_no_run(home: Path) -> None:
    sensor = chain_definitions(with_preset(VALUES)).resolve_sensor_def("reviews_service_events")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING and not sensor.has_jobs


def test_the_registry_follows_the_journal_and_is_asked_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_assets.components.llm_chain.registry import mirror_releases

    asked: list[tuple[str, dict[str, str | None]]] = []

    def mirror(tracker: Tracker, chain: str, name: str, directory: str, fingerprint: str, aliases: dict[str, str | None]) -> str | None:
        asked.append((name, aliases))
        return "no server answers" if len(asked) == 1 else None

    monkeypatch.setattr(Tracker, "mirror_release", mirror)
    store, tracker = Store(home), Tracker(home)
    assert mirror_releases(store, tracker, "reviews") is None and asked == []
    release(home, 1, chain="reviews")
    made = release(home, 2, chain="reviews")
    (home / made["directory"]).rename(home / "elsewhere")
    assert "no quantized_model reviews2" in str(mirror_releases(store, tracker, "reviews")) and asked == []
    (home / "elsewhere").rename(home / made["directory"])
    assert mirror_releases(store, tracker, "reviews") == "no server answers"
    assert mirror_releases(store, tracker, "reviews") is None and mirror_releases(store, tracker, "reviews") is None
    roll_back(home, "reviews", "reviews-1", by="Ann", note="")
    assert mirror_releases(store, tracker, "reviews") is None
    both = {"candidate": "reviews-2", "champion": "reviews-2", "previous": "reviews-1"}
    assert asked == [("reviews-2", both), ("reviews-2", both), ("reviews-1", {"candidate": "reviews-1", "champion": "reviews-1", "previous": None})]
