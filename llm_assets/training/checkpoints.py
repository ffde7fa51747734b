"""Checkpoints that are whole or not used: a hash of every file, written last."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from llm_assets.store.files import sha256_file, write_json

HASHES = "hashes.json"
PREFIX = "checkpoint-"

log = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Write the SHA-256 of every file into ``hashes.json``: from now on the checkpoint counts."""
    write_json(checkpoint / HASHES, _hashes(checkpoint))


def newest(scratch: Path) -> Path | None:
    """The newest sealed checkpoint whose files have the hashes recorded; damaged ones are passed over with a warning.

    Training state is stored with pickle, which runs code when loaded: only files whose hash matched are ever loaded.
    """
    for checkpoint in sorted(scratch.glob(f"{PREFIX}*"), key=step, reverse=True):
        seal_file = checkpoint / HASHES
        if not seal_file.exists():
            log.warning("%s was not finished; going back to an older checkpoint", checkpoint)
            continue
        if json.loads(seal_file.read_text()) != _hashes(checkpoint):
            log.warning("%s has files that do not match their recorded hashes; going back to an older checkpoint", checkpoint)
            continue
        return checkpoint
    return None


def step(checkpoint: Path) -> int:
    """The number of updates made when a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def _hashes(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != HASHES)
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in files}
