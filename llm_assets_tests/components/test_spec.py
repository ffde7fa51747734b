"""What a chain's YAML may say, and how its mistakes are answered."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pydantic import ValidationError

from llm_assets.components.llm_chain.assets import chain_assets
from llm_assets.components.llm_chain.run_config import config_schema
from llm_assets.components.llm_chain.spec import ChainSpec, GenerationSpec, PresetError, Settings, with_preset
from llm_assets.components.llm_chain.trial import overrides
from llm_assets.links.chain import CHAIN, EVERY
from llm_assets.links.making import recipe_of
from llm_assets.operation.acts import OPERATION
from llm_assets.terminal.settings import UsageError
from llm_assets.terminal.settings import overrides as set_by_hand
from llm_assets_tests.links.trained import artifact
from llm_assets_tests.running import ROOT

LINKS = (*CHAIN, *OPERATION)
DEFS = ROOT / "llm_assets" / "defs" / "reviews" / "defs.yaml"
YAML = DEFS.read_text(encoding="utf-8")
VALUES = yaml.safe_load(YAML)["attributes"] | {"name": "reviews"}
TALKING = yaml.safe_load((DEFS.parents[1] / "assistant" / "defs.yaml").read_text(encoding="utf-8"))["attributes"] | {"name": "assistant"}
PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "elsewhere"
"""
DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def project(folder: Path, text: str) -> Path:
    """Somebody else's Dagster project with one chain in it; returns the YAML's path."""
    (folder / "pyproject.toml").write_text('[project]\nname = "elsewhere"\nversion = "1"\n' + PROJECT)
    package = folder / "elsewhere"
    path = package / "defs" / "opinions" / "defs.yaml"
    path.parent.mkdir(parents=True)
    for place in (package, package / "defs"):
        (place / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, script: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    code = f"import elsewhere.definitions as d; defs = d.defs()\n{script}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "LLM_ASSETS_HOME": str(folder / "state"),
        "LLM_ASSETS_DAGSTER": str(folder / "state" / "dagster"),
        **extra,
    }
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def line_of(text: str, needle: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if needle in line)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("  seed: 17", "  sead: 17", ["attributes.sead", "unknown key; there are: name, preset, seed"]),
        ("  seed: 17", "  seed: often", ["seed", "often"]),
        ("  preset: demo", "  preset: demi", ["unknown preset 'demi'", "tiny, demo, full"]),
    ],
)
def test_a_mistake_is_answered_with_file_line_and_remedy(tmp_path: Path, before: str, after: str, words: list[str]) -> None:
    assert before in YAML
    text = YAML.replace(before, after, 1)
    path = project(tmp_path, text)
    ended = load(tmp_path)
    assert ended.returncode != 0
    assert f"{path}:{line_of(text, after)}" in ended.stderr, ended.stderr[-1500:]
    for word in words:
        assert word in ended.stderr, word


def test_a_mistake_in_a_preset_names_its_line(tmp_path: Path) -> None:
    text = YAML.replace("      tokens: {context: 192}", "      tokens: {contxt: 256}", 1)
    path = project(tmp_path, text)
    ended = load(tmp_path)
    assert ended.returncode != 0
    assert f"{path}:{line_of(text, 'contxt')}: tokens.contxt" in ended.stderr
    assert "there are: context, validation_share" in ended.stderr


@pytest.mark.parametrize(("values", "model"), [(VALUES, ChainSpec), (TALKING, GenerationSpec)], ids=["reviews", "assistant"])
def test_every_preset_is_valid_and_differs(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], model: type[Settings]) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    specs = {name: with_preset({**values, "preset": name}, model) for name in values["presets"]}
    assert set(specs) == {"tiny", "demo", "full"}
    assert len({spec.model_dump_json() for spec in specs.values()}) == 3


def test_the_environment_chooses_over_the_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_PRESET", "tiny")
    assert with_preset(VALUES).preset == "tiny"
    monkeypatch.setenv("LLM_ASSETS_PRESET", "huge")
    with pytest.raises(PresetError, match="unknown preset 'huge'; this chain has tiny, demo, full"):
        with_preset(VALUES)


def test_every_key_is_documented() -> None:
    for model in (ChainSpec, *(link.config for link in (*EVERY, *OPERATION))):
        for name, field in model.model_fields.items():
            if model is ChainSpec and name in {link.name for link in LINKS}:
                continue
            assert field.description, f"{model.__name__}.{name} has no description"


@pytest.mark.parametrize(("values", "model"), [(VALUES, ChainSpec), (TALKING, GenerationSpec)], ids=["reviews", "assistant"])
def test_the_launchpad_offers_the_yamls_values(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], model: type[Settings]) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    spec = with_preset(values, model)
    for link in (*spec.links, *spec.OPERATION):
        section = getattr(spec, link.name)
        schema = config_schema(section)
        assert {name: field.default_value for name, field in schema.items()} == section.model_dump(mode="json")


COMMENTED = (DEFS.parents[1] / "assistant" / "defs.yaml").read_text(encoding="utf-8")
ALIGNED, ADAPTED = (  # the sections that the YAML shows
    yaml.safe_load(f"{name}:" + COMMENTED.split(f"  # {name}:")[1].split("\n\n")[0].replace("\n  # ", "\n"))
    for name in ("aligned_model", "task_adapters")
)
PLAIN = {
    "quantized_model": "7394cd5b8ad1b60646a4e050",
    "finetuned_model": "8252b35746455f28e4e200df",
}  # with and without an optional link in the YAML


def test_a_chain_without_an_optional_link_is_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)

    def fingerprints(values: dict[str, Any]) -> dict[str, str]:
        spec = with_preset(values, GenerationSpec)
        stubs = {}
        for link in spec.CHAIN:
            (tmp_path / link.name).mkdir(exist_ok=True)
            stubs[link.name] = artifact(tmp_path / link.name, link.name)
        recipes = {
            link.name: recipe_of(link, getattr(spec, link.name), {name: stubs[name] for name in link.inputs}, 17)
            for link in spec.links
            if link.name in (*PLAIN, *ALIGNED, *ADAPTED)
        }
        return {name: recipe.fingerprint for name, recipe in recipes.items()}

    assert fingerprints(TALKING) == PLAIN == fingerprints(TALKING | {"aligned_model": None, "task_adapters": None})
    aligned = fingerprints(TALKING | ALIGNED)
    assert set(aligned) == {*PLAIN, *ALIGNED} and aligned["finetuned_model"] == PLAIN["finetuned_model"]
    assert aligned["quantized_model"] != PLAIN["quantized_model"]
    adapted = fingerprints(TALKING | ADAPTED)
    assert set(adapted) == {*PLAIN, *ADAPTED} and adapted["quantized_model"] not in (PLAIN["quantized_model"], aligned["quantized_model"])
    assert fingerprints(TALKING | ALIGNED | ADAPTED)["task_adapters"] != adapted["task_adapters"]  # beside another model
    assert aligned["aligned_model"] != fingerprints(TALKING | {"aligned_model": ALIGNED["aligned_model"] | {"beta": 0.2}})["aligned_model"]


def test_the_graph_has_an_optional_link_where_its_section_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)

    def parents(values: dict[str, Any]) -> dict[str, set[str]]:
        made = [asset for asset in chain_assets(with_preset(values, GenerationSpec)) if isinstance(asset, dg.AssetsDefinition)]
        return {key.path[1]: {parent.path[1] for parent in asset.asset_deps[key]} for asset in made for key in asset.keys}

    plain, aligned = parents(TALKING), parents(TALKING | ALIGNED)
    assert "aligned_model" not in plain and plain["quantized_model"] == {"finetuned_model", "evaluation_sets", "labelled_examples"}
    assert aligned["quantized_model"] == plain["quantized_model"] | {"aligned_model"} and "finetuned_model" in aligned["aligned_model"]
    adapted = parents(TALKING | ALIGNED | ADAPTED)
    assert adapted["quantized_model"] == aligned["quantized_model"] | {"task_adapters"} and "aligned_model" in adapted["task_adapters"]
    with pytest.raises(UsageError, match="the chain assistant has no aligned_model"):
        set_by_hand(with_preset(TALKING, GenerationSpec), ["aligned_model.beta=1"])


def test_a_method_that_there_is_not_and_a_missing_trl_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    with pytest.raises(PresetError, match=r"aligned_model\.method: Input should be 'dpo', 'kto', 'orpo' or 'grpo'"):
        with_preset(TALKING | {"aligned_model": {"method": "ppo", "sources": ["taobao-dev"]}}, GenerationSpec)
    with pytest.raises(PresetError, match="set micro_batch to 2 or more"):
        with_preset(TALKING | {"aligned_model": {"method": "kto", "sources": ["taobao-dev"], "micro_batch": 1}}, GenerationSpec)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find(name, *rest))
    with pytest.raises(PresetError, match=r'the losses of dpo are TRL.s, which is not installed.*-e "\.\[preference\]"'):
        with_preset(TALKING | ALIGNED, GenerationSpec)
    assert with_preset(TALKING, GenerationSpec).aligned_model is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("section", ["aligned_model", "task_adapters"])
def test_what_stands_on_whole_weights_is_refused_beside_a_tuned_prefix(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    prefixed = TALKING | {"finetuned_model": {"adapter": {"kind": "prefix"}}}
    assert with_preset(prefixed, GenerationSpec).finetuned_model.adapter.before == 16  # type: ignore[attr-defined]
    with pytest.raises(PresetError, match=rf"{section}: a tuned prefix .* take prompt, .* or leave out the section {section}"):
        with_preset(prefixed | ALIGNED | ADAPTED if section == "aligned_model" else prefixed | ADAPTED, GenerationSpec)


def test_only_what_differs_makes_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    spec = with_preset(VALUES)
    same = spec.tokens.model_dump(mode="json")  # type: ignore[attr-defined]
    assert overrides(spec, [{"ops": {"reviews__tokens": {"config": same}}}]) == {}
    assert overrides(spec, [{}, {"ops": {"reviews__tokens": {"config": {"context": 32}}}}]) == {"tokens.context": 32}


def test_an_approval_is_no_trial_and_changes_no_code_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    spec = with_preset(VALUES)
    approval = {"approved_by": "Ann", "candidate": "reviews-2", "note": "read the scorecard"}
    assert overrides(spec, [{"ops": {"reviews__release": {"config": approval}}}]) == {}
    assert overrides(spec, [{"ops": {"reviews__release": {"config": {**approval, "approval": "by_hand"}}}}]) == {"release.approval": "by_hand"}
    release = spec.release  # type: ignore[attr-defined]
    assert release.model_copy(update=approval).recipe() == release.recipe() == {"approval": "auto"}


@pytest.mark.parametrize("key", ["approved_by", "candidate", "note"])
def test_what_is_said_of_a_run_is_refused_in_the_yaml(key: str) -> None:
    """An approval there would approve every run."""
    with pytest.raises(ValidationError, match=rf"release\.{key} tells of one run; .* give it in that run's config"):
        ChainSpec.model_validate({**VALUES, "release": {key: "Ann"}})


def test_it_serves_inside_somebody_elses_project(tmp_path: Path) -> None:
    """Their own defs, their data root, an upstream asset of theirs as the source, and an MLflow server that is down."""
    text = yaml.safe_dump(
        {
            "type": "llm_assets.LlmChain",
            "attributes": {
                "mlflow": "http://127.0.0.1:9",
                "raw_corpus": {
                    "sources": [
                        {
                            "kind": "asset",
                            "name": "ours",
                            "key": ["exports", "opinions"],
                            "format": "jsonl",
                            "license": "ours",
                            "language": "zh",
                            "columns": {"label": "label"},
                        }
                    ]
                },
            },
        },
        allow_unicode=True,
    )
    path = project(tmp_path, text)
    upstream = path.parent.parent / "exports.py"
    upstream.write_text(
        """
import json
from pathlib import Path
import dagster as dg

@dg.asset(key=["exports", "opinions"])
def opinions():
    path = Path("opinions.jsonl").resolve()
    rows = [{"text": f"第{n}条意见，东西很{'好' if n % 2 else '差'}", "label": "good" if n % 2 else "bad"} for n in range(40)]
    path.write_text("\\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return dg.MaterializeResult(metadata={"path": str(path)})
"""
    )
    script = """
job = defs.resolve_implicit_global_asset_job_def()
instance = dg.DagsterInstance.ephemeral()
import dagster as dg
keys = [dg.AssetKey(["exports", "opinions"]), dg.AssetKey(["opinions", "raw_corpus"])]
result = job.execute_in_process(instance=instance, asset_selection=keys)
event = [m for m in result.get_asset_materialization_events() if m.asset_key.path[-1] == "raw_corpus"][0]
metadata = event.materialization.metadata
print("ROWS", metadata["documents"].value, metadata["mlflow_warning"].value)
""".replace("instance = dg", "import dagster as dg\ninstance = dg", 1)
    ended = load(tmp_path, script)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "ROWS 40 MLflow at http://127.0.0.1:9 did not take the record" in ended.stdout
    assert list((tmp_path / "state" / "mlflow" / "pending").glob("*.json"))
    assert list((tmp_path / "state" / "artifacts" / "raw_corpus").glob("*/manifest.json"))


@pytest.mark.slow
def test_the_wheel_carries_the_chains(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".git", ".venv", "data", "*.egg-info", "build", ".*_cache"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "wheels"), str(tmp_path / "source")]
    subprocess.run(command, check=True)
    wheel = next((tmp_path / "wheels").glob("*.whl"))
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True).stdout
    for name in ("llm_assets/defs/reviews/defs.yaml", "llm_assets/links/versions.json", "llm_assets/serving/site/ask.html"):
        assert name in names, name
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    script = "import llm_assets, llm_assets.definitions as d; print(llm_assets.__file__, list(d.chains()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "LLM_ASSETS_HOME": str(tmp_path / "home")}
    printed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) in printed and "['assistant', 'imdb', 'reviews']" in printed
