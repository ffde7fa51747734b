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
    assert {"llm_assets.LlmChain", "llm_assets.GenerationChain"} <= {component["key"] for component in listed["items"]}


def test_scaffolded_chains_pass_the_check_and_read_their_own_inbox(checkout: Path) -> None:
    for name, component in (("opinions", "llm_assets.LlmChain"), ("helpers", "llm_assets.GenerationChain")):
        dg(checkout, "scaffold", "defs", component, name)
        written = yaml.safe_load((checkout / "llm_assets" / "defs" / name / "defs.yaml").read_text(encoding="utf-8"))
        assert written["type"] == component
        assert written["attributes"]["raw_corpus"]["sources"][0]["path"] == f"inbox/{name}/*.jsonl"
    dg(checkout, "check", "defs")
    keys = {asset["asset_key"] for asset in json.loads(dg(checkout, "list", "defs", "--json"))["assets"]}
    assert {"opinions/raw_corpus", "opinions/endpoint", "helpers/raw_corpus", "helpers/endpoint", "reviews/raw_corpus"} <= keys
