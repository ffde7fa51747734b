"""MLflow's registry in line with a chain's release journal."""

from __future__ import annotations

import json
from pathlib import Path

from llm_assets.serving.releases import release_journal, standing
from llm_assets.store.files import write_json
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store
from llm_assets.tracking.tracker import Tracker


def mirror_releases(store: Store, tracker: Tracker, chain: str) -> str | None:
    """Register the chain's newest release and set the aliases as the journal has them; returns a warning when that did not work.

    What was mirrored last is remembered below the data root, so that nothing is asked of MLflow while the journal stays as it is.
    """
    known = standing(release_journal(store.home, chain))
    newest = known.candidate or known.champion
    if newest is None:
        return None
    mirrored, path = {"release": newest["release"], "aliases": known.aliases}, store.home / "mlflow" / f"registry-{chain}.json"
    if _read(path) == mirrored:
        return None
    fingerprint = newest["quantized_model"]
    try:
        directory = store.open("quantized_model", fingerprint).directory
    except ArtifactError as error:
        return f"MLflow's registry was not updated: {error}"
    warning = tracker.mirror_release(chain, newest["release"], str(directory), fingerprint, known.aliases)
    if warning is None:
        write_json(path, mirrored)
    return warning


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
