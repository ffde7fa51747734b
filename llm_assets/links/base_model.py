"""The weights that a pretraining goes on from: in a folder, on the hub, or another asset's. Only safetensors are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_assets.corpus.hub import observe_commit, observed_commit
from llm_assets.corpus.places import local
from llm_assets.links.link import AssetReference
from llm_assets.store.files import sha256_file
from llm_assets.training.weights import shards

WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")  # shards and the index over them included

Reference = str | AssetReference | None  # a folder or a name on the hub, another asset's folder, or a new model


def observe_base(reference: Reference, revision: str) -> Mapping[str, Any]:
    """The hashes of a folder's configuration and weights, or the commit that a revision on the hub names; nothing of a new model.

    Raises ``ValueError`` for a folder without safetensors.
    """
    name = _place(reference)
    if name is None:
        return {}
    folder = local(name)
    if folder is not None:
        return {"files": {path.name: sha256_file(path) for path in _weights(folder)}}
    return {"name": name, "commit": observe_commit("model", name, revision)}


def fetch_base(reference: Reference, revision: str) -> Path | None:
    """The local folder to continue from, None for a new model; one of the hub is fetched, its weights as safetensors only."""
    name = _place(reference)
    if name is None:
        return None
    folder = local(name)
    if folder is None:
        from huggingface_hub import snapshot_download

        commit = observed_commit("model", name, revision)
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=["*.json", "*.safetensors"]))
    _weights(folder)
    return folder.resolve()


def _weights(folder: Path) -> list[Path]:
    """The files of a folder that training goes on from. Raises ``ValueError`` where configuration or safetensors are missing."""
    shards(folder)
    found = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    for pattern in WEIGHTS[:2]:
        if not any(path.match(pattern) for path in found):
            raise ValueError(
                f"from_pretrained: {folder} holds no {pattern}; a .bin would run code when loaded, so it is not read: "
                "save the model with save_pretrained, which writes safetensors"
            )
    return found


def _place(reference: Reference) -> str | None:
    """The folder or name of ``from_pretrained``. Raises ``ValueError`` for an asset whose place nobody filled in."""
    if not isinstance(reference, AssetReference):
        return reference
    if reference.path is None:
        raise ValueError(f"from_pretrained: {'/'.join(reference.asset)} is an asset, and where it stands is known only to a Dagster run")
    return reference.path
