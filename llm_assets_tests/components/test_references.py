"""Settings that name another asset."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.components.llm_chain.references import referenced_assets, resolve, with_places
from llm_assets.links.pretrained_checkpoint import PretrainedCheckpointConfig, observe
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets_tests.store.conftest import writes

REFERENCE = {"from_pretrained": {"asset": ["base", "pretrained_checkpoint"]}}


def checkpoint(store: Store, passed: bool) -> str:
    recipe = Recipe("pretrained_checkpoint", 1, {"passed": passed})
    artifact, _ = store.make(recipe, writes(recipe, config__json="{}", model__safetensors="weights"))
    store.judge(artifact, [Verdict(check="learned", passed=passed, description="loss")])
    return artifact.fingerprint


def report(instance: dg.DagsterInstance, fingerprint: str) -> None:
    metadata = {"fingerprint": fingerprint, "trial": False}
    instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(["base", "pretrained_checkpoint"]), metadata=metadata))


def test_a_checkpoint_of_another_chain_is_found_and_hashed_in(tmp_path: Path) -> None:
    config = PretrainedCheckpointConfig.model_validate(REFERENCE)
    assert referenced_assets(config) == [["base", "pretrained_checkpoint"]]
    with pytest.raises(ValueError, match="base/pretrained_checkpoint is an asset"):
        observe(config)
    store = Store(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        good = checkpoint(store, passed=True)
        report(instance, good)
        report(instance, checkpoint(store, passed=False))
        placed = PretrainedCheckpointConfig.model_validate(with_places(REFERENCE, resolve(instance, store, REFERENCE)))
    assert str(placed.from_pretrained.path).endswith(good)  # type: ignore[union-attr]  # the newer one failed its check
    assert set(observe(placed)["files"]) == {"config.json", "model.safetensors"}
    assert placed.model_dump(mode="json") == config.model_dump(mode="json")  # where it stands is no part of the recipe


def test_an_asset_that_was_never_materialized_is_named(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="states no path"):
        resolve(instance, Store(tmp_path), {"sources": [{"kind": "asset", "key": ["exports", "opinions"]}]})
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="no usable pretrained_checkpoint for chain base"):
        resolve(instance, Store(tmp_path), REFERENCE)
