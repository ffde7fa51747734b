"""LoRA adapters as GGUF, which llama.cpp adds to a decoder's matrices request by request while the decoder's file stays as it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from llm_assets.compression.gguf import Shape, ShapeError, new_file, permuted, read_tensor, tensor_names, tensor_size

CONFIGURATION, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
SIDES = {"lora_A": "lora_a", "lora_B": "lora_b"}  # PEFT's names of the thin matrices to GGUF's
BEFORE = "base_model.model."  # in front of each tensor's name in PEFT's file
UNKNOWN = ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "megatron_config")


def write_adapter(folder: Path, adapter: Path, target: Path) -> None:
    """Write the LoRA or rsLoRA that PEFT keeps in ``adapter``, trained beside the decoder in ``folder``, as one GGUF file, whole or not at all.

    The thin matrices stay float32: they are small, and answers are those of the adapter beside its weights. llama.cpp multiplies their
    product by alpha over rank, so rsLoRA's alpha is written times the rank's root. Rows of q and k change places as the decoder's do.
    Raises ``ShapeError`` for another kind of adapter, or one of other matrices.
    """
    import gguf

    shape = Shape.read(folder)
    settings = _settings(adapter)
    with new_file(target, shape.architecture) as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, settings["lora_alpha"] * (math.sqrt(settings["r"]) if settings["use_rslora"] else 1))
        for name, size in _tensors(adapter, settings["r"], shape):
            writer.add_tensor(name, size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _settings(adapter: Path) -> dict[str, Any]:
    """PEFT's configuration. Raises ``ShapeError`` for what llama.cpp would not add, or would add otherwise."""
    settings: dict[str, Any] = json.loads((adapter / CONFIGURATION).read_text(encoding="utf-8"))
    if settings.get("peft_type") != "LORA":
        raise ShapeError(f"{adapter}: an adapter of kind {settings.get('peft_type')} is no LoRA, which alone llama.cpp adds to a model")
    found = [f"{name}: {json.dumps(settings[name])}" for name in UNKNOWN if settings.get(name)]
    if settings.get("init_lora_weights") not in (True, "gaussian"):
        found.append(f"init_lora_weights: {json.dumps(settings.get('init_lora_weights'))}")  # may have changed the weights beside it
    if found:
        raise ShapeError(f"{adapter}: {CONFIGURATION} says {found[0]}, which llama.cpp does not add: take lora or rslora")
    return settings


def _tensors(adapter: Path, rank: int, shape: Shape) -> list[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """The thin matrices under GGUF's names. Raises ``ShapeError`` for one beside no matrix of the decoder, or of another width."""
    from safetensors import safe_open

    names, found = tensor_names(shape), []
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        keys = sorted(file.keys())
    for key in keys:
        module, side, _ = key.removeprefix(BEFORE).rsplit(".", 2)
        known = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if known is None or side not in SIDES:
            raise ShapeError(f"{adapter}: tensor {key} has no place in a GGUF adapter of {shape.architecture}")
        size = tensor_size(adapter / WEIGHTS, key)
        if size[side == "lora_B"] != rank:
            raise ShapeError(f"{adapter}: tensor {key} has the size {list(size)}, and {CONFIGURATION} the rank {rank}: they are not of one training")
        tensor = read_tensor(adapter / WEIGHTS, key)
        found.append((f"{known}.{SIDES[side]}", permuted(f"{module}.weight", tensor, shape) if side == "lora_B" else tensor))
    return found
