"""A training checkpoint as one file of weights, on any machine: ``python -m llm_assets.training.consolidate CHECKPOINT OUT``.

No process group, GPU or cluster is needed, whichever ZeRO stage and number of processes wrote the checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from llm_assets.training import states

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def consolidate(checkpoint: Path, out: Path) -> Path:
    """Write config.json and model.safetensors, float32, into ``out``; returns the path of the weights.

    Raises ``CheckpointError`` before anything is loaded where the checkpoint is not sealed or a hash differs.
    """
    from safetensors.torch import save_file

    found = states.read(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in (found.weights | found.buffers).items()}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    shutil.copy(checkpoint / CONFIG, out / CONFIG)
    return out / WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m llm_assets.training.consolidate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a folder checkpoint-<step> of a training's scratch folder")
    parser.add_argument("out", type=Path, help="folder for config.json and model.safetensors")
    given = parser.parse_args(arguments)
    print(consolidate(given.checkpoint, given.out))


if __name__ == "__main__":
    main()
