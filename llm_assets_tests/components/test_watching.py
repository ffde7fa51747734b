"""When a chain in service is looked at, through Dagster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.spec import Settings, with_preset
from llm_assets.components.llm_chain.watching import alerting, watching, watching_job
from llm_assets.operation.acts import OPERATION
from llm_assets.store.journal import Journal
from llm_assets_tests.components.test_spec import VALUES, YAML, line_of, load, project
from llm_assets_tests.operation.traffic import line, write_log


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    return tmp_path


def spec(**changes: object) -> Settings:
    return with_preset({**VALUES, **changes})


def test_the_graph_has_no_way_from_the_log_back_to_what_is_served() -> None:
    graph = chain_definitions(spec()).resolve_asset_graph()
    acts = {link.name for link in OPERATION}
    below, waiting = set(), [dg.AssetKey(["reviews", "request_log"])]
    while waiting:
        for child in graph.get(waiting.pop()).child_keys - below:
            below.add(child)
            waiting.append(child)
    assert below and {key.path[-1] for key in below} <= acts
    assert {graph.get(dg.AssetKey(["reviews", name])).group_name for name in acts} == {"reviews_service"}


def test_the_watching_job_runs_and_the_chains_own_job_has_none_of_it(home: Path) -> None:
    definitions = chain_definitions(spec())
    write_log(home, [line(1, "好")], chain="reviews")
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_job_def("reviews_watching").execute_in_process(instance=instance, partition_key="2026-11-20")
        made = {event.asset_key.path[-1]: event.materialization for event in run.get_asset_materialization_events()}  # type: ignore[union-attr]
        assert run.success and set(made) == {link.name for link in OPERATION}
        assert made["traffic"].partition == "2026-11-20" and made["traffic"].metadata["texts"].value == 1
    chain = definitions.resolve_job_def("reviews")
    assert chain.partitions_def is None and not {f"reviews__{link.name}" for link in OPERATION} & {node.name for node in chain.nodes}


def test_a_trial_calls_nobody_and_teaches_nothing(home: Path) -> None:
    job = chain_definitions(spec()).resolve_job_def("reviews_watching")
    changed = {"ops": {"reviews__feedback_batch": {"config": {"minimum": 1}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        run = job.execute_in_process(instance=instance, partition_key="2026-11-20", run_config=changed)
        made = {event.asset_key.path[-1] for event in run.get_asset_materialization_events()}  # type: ignore[union-attr]
    assert run.success and made == {"traffic", "drift"}


def tick(instance: dg.DagsterInstance, hour: int) -> dg.ScheduleExecutionData:
    moment = datetime(2026, 11, 21, hour, 17, tzinfo=UTC)
    repository = chain_definitions(spec()).get_repository_def()
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=moment, repository_def=repository)
    return watching(spec(), watching_job(spec())).evaluate_tick(context)


def test_each_tick_reads_today_and_once_the_day_that_ended(home: Path) -> None:
    assert watching(spec(), watching_job(spec())).default_status == dg.DefaultScheduleStatus.STOPPED
    assert watching(spec(automation=True), watching_job(spec())).default_status == dg.DefaultScheduleStatus.RUNNING
    read = Journal(home / "journal" / "reviews" / "traffic.jsonl")
    read.append({"at": "2026-11-20T23:17:09+00:00", "trial": False, "record": {"day": "2026-11-20"}})
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        first = tick(instance, 0).run_requests or []
        read.append({"at": "2026-11-21T00:17:09+00:00", "trial": False, "record": {"day": "2026-11-20"}})
        second = tick(instance, 1).run_requests or []
    assert [request.partition_key for request in first] == ["2026-11-20", "2026-11-21"]
    assert [request.partition_key for request in second] == ["2026-11-21"]
    assert len({request.run_key for request in (*first, *second)}) == 3


def test_a_tick_waits_for_the_run_of_the_one_before_to_leave_the_queue(home: Path) -> None:
    job = chain_definitions(spec()).resolve_job_def("reviews_watching")
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)  # under way, or killed long ago
        assert tick(instance, 0).run_requests
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
        assert tick(instance, 1).skip_message == f"run {run.run_id} of an earlier tick still waits in the queue"


def test_the_alert_sensor_says_what_fires_and_shows_it_at_the_asset(home: Path) -> None:
    chain = spec(automation=True, alerts={"rules": ["positive_share > 0.5 over 15m"], "minimum_requests": 1})
    sensor, definitions = alerting(chain), chain_definitions(chain)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    write_log(home, [line(1, "好", at=datetime.now(UTC) - timedelta(minutes=1))], chain="reviews")
    with dg.DagsterInstance.ephemeral() as instance:
        first = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, definitions=definitions))
        assert first.skip_message and "reviews alert: positive_share > 0.5 over 15m" in first.skip_message
        (event,) = first.asset_events
        assert event.asset_key == dg.AssetKey(["reviews", "alerts"]) and event.metadata["kind"].value == "alert"
        again = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, definitions=definitions))
        assert again.asset_events == [] and again.skip_message and again.skip_message.startswith("firing: positive_share")
        renamed = spec(alerts={"rules": ["positive_share > 0.4 over 15m"], "minimum_requests": 1}, roles={"operations_engineer": "night-watch"})
        told = alerting(renamed).evaluate_tick(dg.build_sensor_context(instance=instance, definitions=chain_definitions(renamed)))
        assert [event.metadata["team"].value for event in told.asset_events if event.metadata["kind"].value == "alert"] == ["night-watch"]
    silent = alerting(spec()).evaluate_tick(dg.build_sensor_context(definitions=definitions))
    assert silent.skip_message == "the YAML has no alerts.rules"


def test_the_rule_on_the_models_age_is_a_freshness_policy_too() -> None:
    def policies(chain: Settings) -> dict[str, dg.FreshnessPolicy]:
        graph = chain_definitions(chain).resolve_asset_graph()
        return {key.path[-1]: policy for key in graph.get_all_asset_keys() if (policy := graph.get(key).freshness_policy)}

    assert policies(spec()) == {}
    found = policies(spec(alerts={"rules": ["drift", "stale_model > 30d"]}))
    assert found == dict.fromkeys(("finetuned_model", "endpoint"), dg.FreshnessPolicy.time_window(fail_window=timedelta(days=30)))


def test_a_bad_rule_names_its_line(tmp_path: Path) -> None:
    text = YAML.replace("  preset: demo\n", "  preset: demo\n  alerts:\n    rules:\n      - drift\n      - negative > 0.6\n", 1)
    path = project(tmp_path, text)
    ended = load(tmp_path)
    assert ended.returncode != 0
    assert f"{path}:{line_of(text, 'rules:')}" in ended.stderr and "'negative > 0.6' is no rule; there are: `LABEL_share" in ended.stderr
