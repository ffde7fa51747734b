"""Weights on the disk, looked at without torch: their shapes from the safetensors headers, and whether every shard is there and whole.

The format: 8 bytes little-endian with the header's length, the header as JSON, then the tensors (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
HEADER_LIMIT = 100_000_000  # bytes, as in the format's own reader
ROLES = {"pad": ("pad",), "cls": ("cls",), "sep": ("sep",), "mask": ("mask",), "bos": ("bos", "cls"), "eos": ("eos", "sep")}


class WeightsError(ValueError):
    """A folder of weights is not whole; the message names the file."""


class TokenizerMismatchError(ValueError):
    """A tokenizer makes ids that the checkpoint does not know, or means others by them."""


def parameters(folder: Path) -> int:
    """How many numbers the weights hold. Raises ``WeightsError`` for a missing, cut or foreign shard."""
    return sum(math.prod(shape) for file in shards(folder) for shape in header(file).values())


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder, those that its index names where it has one. Raises ``WeightsError`` where one is missing."""
    index = folder / INDEX
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    placed: Mapping[str, str] | None = _json(index).get("weight_map")
    if placed is None:
        raise WeightsError(f"{index} says of no weight in which shard it is: it has no weight_map. Remedy: copy or download it again")
    files = sorted({folder / name for name in placed.values()})
    for file in files:
        if not file.exists():
            count = sum(name == file.name for name in placed.values())
            raise WeightsError(
                f"{file.name} is missing in {folder}: its {INDEX} names it for {count} of {len(placed)} weights. Remedy: copy or download that shard"
            )
    return files


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a file. Raises ``WeightsError`` for a file that is cut off or is no safetensors."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(HEADER_LIMIT, size):
            raise WeightsError(f"{file} is no whole safetensors file: its header should be {length} bytes. Remedy: copy or download it again")
        try:
            entries: dict[str, Any] = json.loads(opened.read(length))
        except ValueError as error:
            raise WeightsError(f"{file} is no safetensors file: {error}. Remedy: copy or download it again") from error
    entries.pop("__metadata__", None)
    expected = LENGTH_BYTES + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size != expected:
        raise WeightsError(f"{file} has {size} bytes, its header says {expected}: it was cut off. Remedy: copy or download it again")
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def of_layers(name: str) -> bool:
    """Whether a weight of that name stands in a layer: transformers calls them ``layers``, those of T5 ``block``."""
    return ".layers." in name or ".block." in name


def check_tokenizer(folder: Path, vocabulary: int, special: Mapping[str, int]) -> None:
    """Raise ``TokenizerMismatchError`` where a checkpoint's configuration does not go with a tokenizer.

    ``vocabulary`` is the number of tokens it makes, ``special`` its ids by role, such as ``pad_token``.
    """
    config, cure = read_config(folder), "name that checkpoint's own tokenizer under tokenizer.existing"
    known = config.get("vocab_size")
    if known is not None and known < vocabulary:
        raise TokenizerMismatchError(f"{folder} knows {known} tokens, the tokenizer makes {vocabulary}: {cure}")
    for role, names in ROLES.items():
        stated = config.get(f"{role}_token_id")
        mine = next((special[f"{name}_token"] for name in names if f"{name}_token" in special), None)
        if isinstance(stated, int) and mine is not None and stated != mine:
            raise TokenizerMismatchError(f"{folder} means token {stated} by {role}_token, the tokenizer {mine}: {cure}")


def read_config(folder: Path) -> dict[str, Any]:
    """The model's configuration."""
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}. Remedy: copy or download it again") from error
    return found
