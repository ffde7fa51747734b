"""A trained artifact made by hand, and what a test asks of MLflow about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet

from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import MANIFEST, InputEntry, Manifest, describe_files

STEPS = 700  # two metrics each: more than one batch
NAN = float("nan")


def make(home: Path, fingerprint: str, link: str = "finetuned_model", trained: bool = True) -> Artifact:
    """A committed artifact with a weight file and a curve; its validation loss is known at every 100th step only."""
    directory = home / "artifacts" / link / fingerprint
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    steps = list(range(1, STEPS + 1))
    columns = {
        "step": steps,
        "loss": [1 / step for step in steps],
        "rate": [float(step) for step in steps],
        "validation_loss": [2 / step if step % 100 == 0 else NAN for step in steps],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), directory / "curve.parquet")
    manifest = Manifest(
        link=link, fingerprint=fingerprint, data_version=fingerprint if trained else "content", seconds=2.5, core_seconds=4, peak_memory_bytes=10**9,
        recipe={"config": {f"option_{index}": index for index in range(120)} | {"optimizer": {"lr": 0.01}}, "seed": 7},
        inputs={"tokens": InputEntry(link="tokens", fingerprint="feed", data_version="beef")}, files=describe_files(directory),
        metrics={"accuracy": {"test": 0.75}, "epochs": 3, "diverged": NAN, "best": True, "model": "tiny", "noise": {"差 -> 好": 0.1}},
        licenses=[], libraries={}, code={"commit": "c0ffee"}, dagster_run_id="run-1", host="test", started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return Artifact(directory, manifest)
