"""When a chain runs by itself: a nightly schedule and a sensor that notices new documents."""

from __future__ import annotations

import dagster as dg

from llm_assets.components.llm_chain.spec import Settings
from llm_assets.corpus.formats import FORMATS, is_readable
from llm_assets.links.chain import CHAIN
from llm_assets.store.fingerprint import digest
from llm_assets.store.home import data_root


def chain_job(spec: Settings) -> dg.UnresolvedAssetJobDefinition:
    """The job that materializes the whole chain."""
    return dg.define_asset_job(
        spec.name,
        selection=dg.AssetSelection.assets(*([spec.name, link.name] for link in CHAIN)),
        description=f"Materializes the chain {spec.name}; what stands already is reused.",
        executor_def=executor(spec),
    )


def executor(*specs: Settings) -> dg.ExecutorDefinition:
    """In the run's process by default: training is a child process anyway, and small links start at once.

    Each link in a process of its own where one of the chains asks for it.
    """
    if any(spec.executor == "processes" for spec in specs):
        return dg.multiprocess_executor.configured(
            {"start_method": {"forkserver": {"preload_modules": ["llm_assets.definitions"]}}, "max_concurrent": 2}, name="processes"
        )
    return dg.in_process_executor


def nightly(spec: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """The schedule on the chain's job."""
    return dg.ScheduleDefinition(
        name=f"{spec.name}_nightly",
        job=job,
        cron_schedule=spec.schedule,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if spec.automation else dg.DefaultScheduleStatus.STOPPED,
        description="Materializes the chain; nothing is made twice, so a night without news costs seconds.",
    )


def new_documents(spec: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor on the chain's inbox: one run a change of its files."""
    inbox = data_root() / "inbox" / spec.name

    @dg.sensor(
        name=f"{spec.name}_new_documents",
        job=job,
        minimum_interval_seconds=spec.inbox_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if spec.automation else dg.DefaultSensorStatus.STOPPED,
        description=f"Materializes the chain when the files in data/inbox/{spec.name}/ change.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        files = sorted(path for path in inbox.glob("*") if is_readable(path.name) and not path.name.startswith("."))
        if not files:
            return dg.SkipReason(f"no documents ({', '.join(FORMATS)}) in {inbox}")
        state = digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])
        if state == context.cursor:
            return dg.SkipReason(f"the {len(files)} files in {inbox} have not changed since the last run was asked for")
        context.update_cursor(state)
        change = digest([context.cursor, state])  # files that come back to an earlier state are news again
        return dg.RunRequest(run_key=change, tags={"llm_assets/reason": f"new documents: {len(files)} files in the inbox"})

    return watch
