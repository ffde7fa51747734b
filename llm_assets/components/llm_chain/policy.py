"""The policy sensor: gathers what the retraining policy decides from, and starts the chain or says why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from llm_assets.components.llm_chain.runs import REASON_TAG
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.corpus.batches import batch_files, batch_folder, standing_rows
from llm_assets.corpus.formats import is_readable
from llm_assets.operation.policy import State, Wait, decide
from llm_assets.serving.releases import champion, release_journal
from llm_assets.store.home import data_root
from llm_assets.store.journal import Journal

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]  # fmt: skip
LOOKED_AT = 50  # newest runs of the chain among which the newest whole one is looked for


def retraining(spec: Settings, job: dg.UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor that asks for runs of the chain by its section `retraining`."""

    @dg.sensor(
        name=f"{spec.name}_retraining",
        job=job,
        minimum_interval_seconds=spec.inbox_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if spec.automation else dg.DefaultSensorStatus.STOPPED,
        description=f"Runs the chain when there is reason to: new files in data/inbox/{spec.name}/, feedback, drift, or time; one run at a time.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        state = state_of(context.instance, data_root(), spec, json.loads(context.cursor or "{}"))
        decision = decide(state, datetime.now(UTC), spec.retraining)
        if isinstance(decision, Wait):
            return dg.SkipReason(decision.why)
        context.update_cursor(json.dumps(state.marks, ensure_ascii=False))
        return dg.RunRequest(run_key=decision.run_key, tags={REASON_TAG: decision.reason})

    return watch


def state_of(instance: dg.DagsterInstance, home: Path, spec: Settings, seen: Mapping[str, Any]) -> State:
    """What the decision is made from; ``seen`` is the state's ``marks`` when a run was last asked for."""
    under_way = instance.get_runs(dg.RunsFilter(job_name=spec.name, statuses=UNDER_WAY), limit=1)
    last = _last_run(instance, spec.name)
    files = {path.name: _mark(path) for path in sorted((home / "inbox" / spec.name).glob("*")) if is_readable(path.name) and path.name[0] != "."}
    batches = [path.stem for path in batch_files(batch_folder(home, spec.name))]
    fresh = set(batches) - set(seen.get("batches", ()))
    before = seen.get("files", {})
    return State(
        running=under_way[0].run_id if under_way else None,
        last=last,
        documents=sum(before.get(name) != mark for name, mark in files.items()),
        feedback=sum(len(standing_rows(batch_folder(home, spec.name) / f"{name}.parquet")) for name in fresh),
        drifted=_drifted(home, spec.name, last),
        marks={"files": files, "batches": batches},
    )


def _last_run(instance: dg.DagsterInstance, job: str) -> datetime | None:
    """When the newest run of the whole chain was made; runs of a few of its links do not count."""
    for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=LOOKED_AT):
        if record.dagster_run.asset_selection is None:
            return record.create_timestamp.astimezone(UTC)
    return None


def _drifted(home: Path, chain: str, last: datetime | None) -> str | None:
    """Why the newest look for drift saw some since the last run; None where it was at another release than the champion.

    While the run that answers a drift is under way the release before still serves, and still drifts: that is no reason for another.
    """
    entry = Journal(home / "journal" / chain / "drift.jsonl").newest(lambda entry: not entry["trial"] and entry["record"]["judged"])
    if entry is None or not entry["record"]["drifted"] or (last and datetime.fromisoformat(entry["at"]) <= last):
        return None
    served = champion(release_journal(home, chain))
    if served is None or served["release"] != entry["record"]["release"]:
        return None
    return str(entry["record"]["reason"])


def _mark(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size}:{state.st_mtime_ns}"
