"""The jobs and the schedule that run a whole chain."""

from __future__ import annotations

import dagster as dg

from llm_assets.components.llm_chain.spec import Settings


def chain_job(spec: Settings) -> dg.UnresolvedAssetJobDefinition:
    """The job that materializes the whole chain."""
    return dg.define_asset_job(
        spec.name,
        selection=dg.AssetSelection.assets(*([spec.name, link.name] for link in spec.links)),
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
        default_status=dg.DefaultScheduleStatus.RUNNING if spec.automation and not spec.retraining.every else dg.DefaultScheduleStatus.STOPPED,
        description="Materializes the chain; nothing is made twice, so a night without news costs seconds. Off where retraining.every says when.",
    )
