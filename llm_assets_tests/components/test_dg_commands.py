"""The commands of Dagster's own `dg` over this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llm_assets_tests.running import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dg")
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "llm_assets", folder / "llm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def dg(checkout: Path, *arguments: str) -> str:
    variables = {**os.environ, "PYTHONPATH": str(checkout), "LLM_ASSETS_HOME": str(checkout / "data"), "DAGSTER_HOME": str(checkout)}
    variables |= {"LLM_ASSETS_DAGSTER": str(checkout / "data" / "dagster")}
    command = [str(Path(sys.executable).with_name("dg")), *arguments]
    ended = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_component_is_listed(checkout: Path) -> None:
    listed = json.loads(dg(checkout, "list", "components", "--json"))
    assert "llm_assets.LlmChain" in {component["key"] for component in listed["items"]}


def test_a_scaffolded_chain_passes_the_check_and_reads_its_own_inbox(checkout: Path) -> None:
    dg(checkout, "scaffold", "defs", "llm_assets.LlmChain", "opinions")
    written = yaml.safe_load((checkout / "llm_assets" / "defs" / "opinions" / "defs.yaml").read_text(encoding="utf-8"))
    assert written["type"] == "llm_assets.LlmChain"
    assert written["attributes"]["raw_corpus"]["sources"][0]["path"] == "inbox/opinions/*.jsonl"
    dg(checkout, "check", "defs")
    keys = {asset["asset_key"] for asset in json.loads(dg(checkout, "list", "defs", "--json"))["assets"]}
    assert {"opinions/raw_corpus", "opinions/endpoint", "reviews/raw_corpus"} <= keys
