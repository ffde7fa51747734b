"""Where a pretraining goes on from; what is observed and refused of a folder stands in the tests of the link as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.links.base_model import fetch_base, observe_base
from llm_assets.links.link import AssetReference


def test_a_new_model_shows_nothing_and_has_no_folder() -> None:
    assert observe_base(None, "main") == {} and fetch_base(None, "main") is None


def test_another_assets_folder_is_read_as_any(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    reference = AssetReference(asset=["reviews", "pretrained_checkpoint"], path=str(tmp_path))
    assert fetch_base(reference, "main") == tmp_path.resolve()
    before = observe_base(reference, "main")
    assert set(before["files"]) == {"config.json", "model.safetensors"} and before == observe_base(str(tmp_path), "other")
    (tmp_path / "model.safetensors").write_text("other weights")
    assert observe_base(reference, "main") != before


def test_an_asset_whose_place_nobody_knows_is_refused() -> None:
    reference = AssetReference(asset=["reviews", "pretrained_checkpoint"])
    for ask in (observe_base, fetch_base):
        with pytest.raises(ValueError, match=r"from_pretrained: reviews/pretrained_checkpoint is an asset"):
            ask(reference, "main")


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("pickled")
    with pytest.raises(ValueError, match=r"holds no \*\.safetensors; a \.bin would run code"):
        fetch_base(str(tmp_path), "main")
