"""Materializing a chain from the command line as the UI would: a run of the code location, in the same instance."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.origin import JobPythonOrigin
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from filelock import FileLock, Timeout

from llm_assets.components.llm_chain.spec import PRESET_TAG, Settings, merge
from llm_assets.components.llm_chain.trial import op_name

MODULE = "llm_assets.definitions"
LOCATION = "llm_assets"  # the name in workspace.yaml and in pyproject.toml's [tool.dg.project]
REPOSITORY = "__repository__"  # what Dagster calls the one repository of a Definitions object
POLL_SECONDS = 1.0
REASON_TAG = "llm_assets/reason"  # of a run: what made somebody, or the policy, ask for it
LIFE_TAG = "llm_assets/process"  # of a run whose process holds a lock while it lives
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # the event log goes to the instance, the terminal shows bars


@dataclass
class RunReport:
    """How a run ended."""

    run_id: str
    succeeded: bool
    cancelled: bool = False
    failures: list[str] = field(default_factory=list)  # "link: message" and "link: check NAME failed: why"


def run_chain(
    instance: dg.DagsterInstance,
    home: Path,
    spec: Settings,
    run_id: str,
    select: Sequence[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    reason: str = "",
) -> RunReport:
    """Materialize a chain, or the links of ``select``, in this process; ``overrides`` maps link to changed keys,
    ``reason`` says why, in the tag that the policy sensor writes too.

    The run carries the code location's origin, so the UI lists, re-executes and terminates it like its own:
    its status is polled, and CANCELING or CANCELED interrupts this process.
    """
    settle_dead_runs(instance, home)
    repository = ReconstructableRepository.for_module(MODULE, "defs", working_directory=str(Path.cwd()))
    job = repository.get_reconstructable_job(spec.name)
    keys = frozenset(dg.AssetKey([spec.name, link]) for link in select)
    if keys:
        job = job.get_subset(asset_selection=keys)
    with _life(home, run_id):
        run = instance.create_run_for_job(
            job_def=job.get_definition(),
            run_id=run_id,
            run_config=run_config(spec, overrides or {}),
            asset_selection=keys or None,
            tags={PRESET_TAG: spec.preset or "none", LIFE_TAG: "lock", **({REASON_TAG: reason} if reason else {})},
            remote_job_origin=_remote_origin(spec.name),
            job_code_origin=JobPythonOrigin(job_name=spec.name, repository_origin=repository.get_python_origin()),
        )
        with _interrupted_by_cancel(instance, run_id):
            try:
                events = execute_run(job, run, instance, raise_on_error=False).all_events
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                events = []
        return _report(instance, run_id, events)


@contextmanager
def open_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance, its tables made under a lock: two first runs at once would both create them."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "dagster.lock"):
        instance = dg.DagsterInstance.get()
        instance.get_runs_count()
        instance.all_asset_keys()
    with instance:
        yield instance


def settle_dead_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Report runs whose process was killed as failed, and return their ids.

    Nothing else would: they would stay STARTED and take a place in the queue of runs for ever.
    """
    active = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING], tags={LIFE_TAG: "lock"})
    dead = []
    for run in instance.get_runs(active):
        lock = _life(home, run.run_id)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        instance.report_run_failed(run, "the process of this run was killed; run again to go on from what is made")
        lock.release()
        dead.append(run.run_id)
    return dead


def _life(home: Path, run_id: str) -> FileLock:
    """The lock a run's process holds while it lives; the system releases it however the process ends."""
    folder = home / "work" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{run_id}.lock")


def run_config(spec: Settings, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Dagster run config for changed keys, nested ones laid over the section's values."""
    ops = {}
    for link, changes in overrides.items():
        values = getattr(spec, link).model_dump(mode="json")
        merged = merge(values, changes)
        ops[op_name(spec.name, link)] = {"config": {key: merged[key] for key in changes}}
    return {**QUIET, **({"ops": ops} if ops else {})}


def _remote_origin(job: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE, working_directory=str(Path.cwd()))
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=LOCATION)
    return RemoteJobOrigin(repository_origin=RemoteRepositoryOrigin(code_location_origin=location, repository_name=REPOSITORY), job_name=job)


@contextmanager
def _interrupted_by_cancel(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Interrupt this process when the run is cancelled elsewhere: the UI cannot signal a process it did not start."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            run = instance.get_run_by_id(run_id)
            if run and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED):
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _report(instance: dg.DagsterInstance, run_id: str, events: Sequence[dg.DagsterEvent]) -> RunReport:
    """How the run ended. Dagster takes an interrupt that nobody asked for in the UI as a failure; here it is a cancel."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    interrupted = run.status != dg.DagsterRunStatus.SUCCESS and (not events or any(_is_interrupt(event) for event in events))
    if interrupted and run.status != dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run, message="interrupted on the command line")
    cancelled = interrupted or run.status == dg.DagsterRunStatus.CANCELED
    return RunReport(run_id, run.status == dg.DagsterRunStatus.SUCCESS, cancelled, [] if cancelled else _failures(events))


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else event.job_failure_data.error if event.is_job_failure else None
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _failures(events: Sequence[dg.DagsterEvent]) -> list[str]:
    failures = []
    for event in events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
                failures.append(f"{evaluation.asset_key.path[-1]}: check {evaluation.check_name} failed: {evaluation.description}")
        elif event.is_step_failure:
            error = event.step_failure_data.error
            cause = error
            while cause is not None and cause.cause is not None:
                cause = cause.cause
            link = str(event.step_key).split("__")[-1]
            if cause is not None and cause.cls_name != "DagsterAssetCheckFailedError":
                failures.append(f"{link}: {cause.message.strip()}")
    return failures
