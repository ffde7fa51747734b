"""What keeping records costs a chain."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from benchmarks.chain import CHAIN, first_run
from benchmarks.result import Result
from llm_assets.components.llm_chain.report import RECORDS
from llm_assets.links.chain import AUDITED, LINKS
from llm_assets.store.home import prepare_environment

MOST = 0.02  # of the chain's time


def overhead(preset: str, home: Path) -> Result:
    """The share of a first `llm-assets run` that goes into records of lineage, against 2%.

    Each step times, by one clock (`store/records.py`), what it spends on hashing inputs and outputs, the ledger, MLflow's run, OpenLineage's
    events and the pages of the release, and states it in its metadata; the check `lineage` times the whole of itself. Against them stands the
    wall clock of the whole command. The first event and the first MLflow run of a process pay for their library's import.
    """
    seconds = first_run(home, preset)
    _open(home)
    spent = {}
    with dg.DagsterInstance.get() as instance:
        for link in LINKS:
            made = instance.fetch_materializations(dg.AssetKey([CHAIN, link]), limit=1, ascending=True).records[0].asset_materialization
            assert made
            spent[link] = float(made.metadata[RECORDS].value)  # type: ignore[arg-type]
        for link in AUDITED:
            spent[f"{link}: check lineage"] = _check_seconds(instance, dg.AssetCheckKey(dg.AssetKey([CHAIN, link]), "lineage"))
    for name, cost in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:<26}{cost:8.3f} s")
    share = sum(spent.values()) / seconds
    print(f"records {sum(spent.values()):.2f} s of {seconds:.1f} s")
    return Result("overhead", round(share, 4), "share of the run's time", f"<= {MOST}", share <= MOST)


def _open(home: Path) -> None:
    os.environ |= {"LLM_ASSETS_HOME": str(home), "LLM_ASSETS_DAGSTER": str(home / "dagster")}
    prepare_environment()


def _check_seconds(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> float:
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event and record.event.dagster_event
    return float(record.event.dagster_event.asset_check_evaluation_data.metadata[RECORDS].value)  # type: ignore[arg-type]
