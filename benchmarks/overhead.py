"""What keeping records costs a chain, and whether the answers of a chain in service all lead back to their sources."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import dagster as dg

from benchmarks.chain import CHAIN, first_run
from benchmarks.result import Result
from llm_assets.audit.ids import answers, find
from llm_assets.audit.provenance import trace_back
from llm_assets.components.llm_chain.report import RECORDS
from llm_assets.links.chain import AUDITED, LINKS
from llm_assets.store.home import prepare_environment
from llm_assets.terminal.audit_commands import indexes

MOST = 0.02  # of the chain's time
DRAWN = 1_000  # answers


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


def completeness(preset: str, home: Path) -> Result:
    """1,000 answers drawn at random from the request logs of --home, a data root with traffic: how many lead to their documents' sources.

    An answer counts when its release is in the journal, every artifact under it is there or its removal is recorded, and each raw corpus names
    its sources. Where there are fewer answers than that, all are asked.
    """
    _open(home)
    logged = [answer.id for answer in answers(home, limit=10**9)]
    if not logged:
        raise SystemExit(f"{home} has no answers in serving/log/: name a data root in service with --home")
    drawn = random.Random(0).sample(logged, min(DRAWN, len(logged)))
    complete, releases = 0, Counter[str]()
    with indexes() as known:
        for one in drawn:
            lineage = trace_back(find(known, one), one)
            assert lineage.release
            releases[lineage.release.release] += 1
            corpora = [node for node in lineage.nodes.values() if node.link == "raw_corpus"]
            complete += bool(corpora) and all(node.sources for node in corpora) and not lineage.breaks
    for release, count in sorted(releases.items()):
        print(f"  {release:<26}{count:8,} answers")
    print(f"{complete:,} of {len(drawn):,} answers, drawn from {len(logged):,}, lead to their documents' sources")
    return Result("completeness", complete / len(drawn), "share of the answers", "1", complete == len(drawn))


def _open(home: Path) -> None:
    os.environ |= {"LLM_ASSETS_HOME": str(home), "LLM_ASSETS_DAGSTER": str(home / "dagster")}
    prepare_environment()


def _check_seconds(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> float:
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event and record.event.dagster_event
    return float(record.event.dagster_event.asset_check_evaluation_data.metadata[RECORDS].value)  # type: ignore[arg-type]
