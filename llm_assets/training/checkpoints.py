"""Checkpoints that are whole or not used: a hash of every file, written last."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from llm_assets.store.files import sha256_file, write_json

HASHES = "hashes.json"
PREFIX = "checkpoint-"

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint is not whole; nothing of it was loaded."""


def seal(checkpoint: Path) -> None:
    """Write the SHA-256 of every file into ``hashes.json``: from now on the checkpoint counts."""
    write_json(checkpoint / HASHES, _hashes(checkpoint))


def newest(scratch: Path) -> Path | None:
    """The newest sealed checkpoint whose files have the hashes recorded; damaged ones are passed over with a warning.

    Training state is stored with pickle, which runs code when loaded: only files whose hash matched are ever loaded.
    """
    for checkpoint in sorted(scratch.glob(f"{PREFIX}*"), key=step, reverse=True):
        try:
            verify(checkpoint)
        except CheckpointError as error:
            log.warning("%s; going back to an older checkpoint", error)
            continue
        return checkpoint
    return None


def verify(checkpoint: Path) -> None:
    """Raise ``CheckpointError`` unless a checkpoint is sealed and its files have the hashes recorded."""
    record = checkpoint / HASHES
    if not record.exists():
        raise CheckpointError(f"{checkpoint} has no {HASHES}: it was not finished, and files without a recorded hash are not loaded")
    expected, found = json.loads(record.read_text(encoding="utf-8")), _hashes(checkpoint)
    if bad := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise CheckpointError(f"{checkpoint}: {', '.join(bad[:5])} do not match their recorded hashes; nothing was loaded")


def step(checkpoint: Path) -> int:
    """The number of updates made when a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def _hashes(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != HASHES)
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in files}
