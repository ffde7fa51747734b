"""What Dagster adds to the bare links, and what a run costs when nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.result import Result
from llm_assets.store.files import write_json
from llm_assets.store.store import Store

CHAIN = "reviews"
ACTS = ("compute", "scorecard", "release", "endpoint")


def orchestration(preset: str, home: Path) -> Result:
    """Wall clock of a first `llm-assets run` over the sum of its bare link functions.

    The sum comes from the manifests and journals of the same run, which time the function alone: without checks,
    hashing, MLflow, Dagster and the start of the command.
    """
    seconds = first_run(home, preset)
    store = Store(home)
    links = {manifest.link: manifest.seconds for manifest in store.manifests()}
    links |= {act: next(store.journal(CHAIN, act).entries())["seconds"] for act in ACTS}
    bare = sum(links.values())
    for link, cost in sorted(links.items(), key=lambda item: -item[1]):
        print(f"  {link:<24}{cost:8.1f} s")
    print(f"whole run {seconds:.1f} s, bare links {bare:.1f} s")
    ratio = seconds / bare
    return Result("orchestration", round(ratio, 3), "ratio", "<= 1.15", ratio <= 1.15)


def reuse(preset: str, home: Path) -> Result:
    """Wall clock of a second `llm-assets run` with nothing changed over that of the first, every made link reused."""
    first = first_run(home, preset)
    made = {manifest.fingerprint: manifest.started for manifest in Store(home).manifests()}
    second = _run(home, preset)
    same = made == {manifest.fingerprint: manifest.started for manifest in Store(home).manifests()}
    print(f"first {first:.1f} s, second {second:.1f} s, every made link reused: {same}")
    share = second / first
    return Result("reuse", round(share, 4), "share of the first run's time", "<= 0.05", same and share <= 0.05)


def first_run(home: Path, preset: str) -> float:
    """Seconds of the first run in ``home``; with --home, a later benchmark reads what an earlier one measured there."""
    measured = home / f"first-run-{preset}.json"
    if not measured.exists():
        write_json(measured, _run(home, preset))
    return float(json.loads(measured.read_text(encoding="utf-8")))


def _run(home: Path, preset: str) -> float:
    environment = {**os.environ, "LLM_ASSETS_HOME": str(home), "LLM_ASSETS_DAGSTER": str(home / "dagster")}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "llm_assets.cli", "run", CHAIN, "--preset", preset], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
