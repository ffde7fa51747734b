from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from llm_assets.components.llm_chain.agenda import agenda
from llm_assets.components.llm_chain.spec import with_preset
from llm_assets_tests.components.test_spec import VALUES

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """One with a storage for schedules, which an ephemeral one lacks."""
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        yield local


def line(instance: dg.DagsterInstance, **changes: object) -> str:
    (found,) = agenda(instance, [with_preset({**VALUES, **changes})], NOW)
    return found


def test_what_is_on_and_when_next_and_how_to_switch_on(instance: dg.DagsterInstance) -> None:
    off = line(instance)
    assert off.startswith("reviews: nightly off, watching off, alerts off, retraining off (automation: on in its YAML")
    on = line(instance, automation=True, alerts={"seconds": 30})
    assert on == "reviews: nightly next 2026-11-21 02:00 UTC, watching next 2026-11-20 13:17 UTC, alerts every 30 s, retraining every 60 s"
    assert "nightly off, watching next" in line(instance, automation=True, retraining={"every": "7d"})


def test_a_switch_thrown_in_the_ui_counts_over_the_yaml(instance: dg.DagsterInstance) -> None:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="llm_assets.definitions"))
    repository = RemoteRepositoryOrigin(location, "__repository__")
    for name, status in (("reviews_retraining", InstigatorStatus.STOPPED), ("reviews_alerts", InstigatorStatus.DECLARED_IN_CODE)):
        origin = RemoteInstigatorOrigin(repository, name)
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=60)))
    assert line(instance, automation=True).endswith("alerts every 60 s, retraining off")
