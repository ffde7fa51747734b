"""When a chain in service is looked at: a schedule for traffic, drift and feedback, and a sensor for alerts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import dagster as dg

from llm_assets.components.llm_chain.automation import executor
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.operation.alerts import AlertsConfig, Outcome, look
from llm_assets.store.home import data_root
from llm_assets.store.journal import Journal

QUEUED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]  # one that was started and died stands among neither, and stops no tick
AGING = ("finetuned_model", "endpoint")  # what a rule on the model's age is shown at in the UI


def watching_job(spec: Settings) -> dg.UnresolvedAssetJobDefinition:
    """The job that reads what the gateway wrote; its partition is the UTC day of the traffic."""
    return dg.define_asset_job(
        f"{spec.name}_watching",
        selection=dg.AssetSelection.assets(*([spec.name, link.name] for link in spec.OPERATION)),
        description=f"Reads what the gateway wrote of {spec.name}: {', '.join(link.name for link in spec.OPERATION)}; the partition is a UTC day.",
        executor_def=executor(spec),
    )


def watching(spec: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """The schedule on ``watching_job``: today at each tick, and once more the day that has ended, for what came after its last tick."""

    @dg.schedule(
        name=f"{spec.name}_watching",
        job=job,
        cron_schedule=spec.watching,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if spec.automation else dg.DefaultScheduleStatus.STOPPED,
        description=f"Materializes {', '.join(link.name for link in spec.OPERATION)} with today's partition; a day that has ended is read once more.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        if waiting := context.instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=QUEUED), limit=1):
            return dg.SkipReason(f"run {waiting[0].run_id} of an earlier tick still waits in the queue")
        moment = context.scheduled_execution_time
        yesterday, today = ((moment - timedelta(days=days)).date().isoformat() for days in (1, 0))
        days = [today] if _was_read_after_its_end(spec.name, yesterday) else [yesterday, today]
        return [dg.RunRequest(run_key=f"{moment.isoformat()} {day}", partition_key=day) for day in days]

    return tick


def _was_read_after_its_end(chain: str, day: str) -> bool:
    """Whether traffic of a UTC day was read on a later one. A schedule's run key holds for one tick only, so it cannot tell."""
    entries = Journal(data_root() / "journal" / chain / "traffic.jsonl").entries()
    return any(entry["record"]["day"] == day < entry["at"][:10] for entry in entries if not entry["trial"])


def alerting(spec: Settings) -> dg.SensorDefinition:
    """The sensor that reads the rules off the running service; what begins and ends shows as a materialization of `alerts`."""
    key, section = dg.AssetKey([spec.name, "alerts"]), alert_settings(spec)

    @dg.sensor(
        name=f"{spec.name}_alerts",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=section.seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if spec.automation else dg.DefaultSensorStatus.STOPPED,
        description=f"Reads the {len(section.rules)} rules of the YAML off the running service and tells the channels what begins and what ends.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not section.rules:
            return dg.SensorResult(skip_reason="the YAML has no alerts.rules")
        outcome = look(data_root(), spec.name, section, teams=spec.roles)
        told = [dg.AssetMaterialization(key, description=change["message"], metadata=_metadata(change)) for change in outcome.changes]
        return dg.SensorResult(skip_reason=_said(outcome), asset_events=told)

    return watch


def alert_settings(spec: Settings) -> AlertsConfig:
    """The chain's section `alerts`."""
    return cast(AlertsConfig, spec.alerts)  # type: ignore[attr-defined]  # ChainSpec gets its sections when it is created


def freshness(spec: Settings, link: str) -> dg.FreshnessPolicy | None:
    """Dagster's own view of the rule `stale_model`: the assets that an old model shows at fail after the same time.

    A link that is reused counts as materialized, so Dagster's view is how long ago the chain last ran; the rule asks how old the model is.
    """
    ages = [rule.bound for rule in alert_settings(spec).parsed() if rule.metric == "stale_model"]
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=min(ages))) if ages and link in AGING else None


def _said(outcome: Outcome) -> str:
    changed = [change["message"] for change in outcome.changes]
    firing = [f"firing: {rule} since {since[:19]} UTC" for rule, since in outcome.firing.items()]
    return "; ".join([*changed, *(firing or ["no rule holds"]), *outcome.undelivered])


def _metadata(change: Mapping[str, Any]) -> dict[str, Any]:
    return {key: change[key] for key in ("kind", "rule", "role", "team", "since") if change[key] is not None}
