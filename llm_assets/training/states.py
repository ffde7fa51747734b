"""Training states put together from the parts that the ranks of a DeepSpeed run wrote, for whichever ZeRO stage and number of ranks.

How each stage cuts them (DeepSpeed 0.19): stage 0 writes whole tensors. Stages 1 and 2 lay a group's weights end to end and give
each rank one stretch; the rank notes which piece of which weight stands where. Stage 3 cuts each weight into as many equal pieces
as there are ranks, the last one padded, and lays a rank's pieces end to end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.training import checkpoints

if TYPE_CHECKING:
    import torch

RANK = re.compile(r"pp_rank_(\d+)_")  # DeepSpeed calls its data-parallel rank so


@dataclass
class States:
    """What a training knew, by the weights' names, whole and in float32."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    tensors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)  # the optimizer's, by weight and name, of the weight's shape
    scalars: dict[str, Any] = field(default_factory=dict)  # the optimizer's, the same for all weights: step
    schedule: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # global_steps, global_samples, skipped_steps


class Layout(NamedTuple):
    """How states are cut, where it makes a difference: DeepSpeed loads no other layout than the one it runs with."""

    stage: int  # 1 for 2 too, which cuts alike
    ranks: int  # 1 for stage 0, which cuts nothing
    bfloat16: bool  # beside float32 states; stage 0 names its files alike for both

    @classmethod
    def of(cls, stage: int, ranks: int, bfloat16: bool) -> Layout:
        """The layout of a run."""
        return cls(3 if stage == 3 else min(stage, 1), ranks if stage else 1, bfloat16 and stage > 0)


def layout(checkpoint: Path) -> Layout:
    """How a checkpoint is cut; told by its files' names, nothing in them is read."""
    folder = _folder(checkpoint)
    sliced = len(list(folder.glob("*pp_rank_*_model_states.pt"))) > 0
    names = [path.name for path in folder.glob("*optim_states.pt")]
    return Layout.of(3 if sliced else 1 if names else 0, len(names), any(name.startswith("bf16_") for name in names))


def read(checkpoint: Path) -> States:
    """The whole states of a checkpoint. Raises ``CheckpointError`` unless it is sealed and every file has its recorded hash.

    Even then only the classes that DeepSpeed writes are admitted; anything else in a file is an ``UnpicklingError``.
    """
    checkpoints.verify(checkpoint)
    folder = _folder(checkpoint)
    parts = [_load(path)["optimizer_state_dict"] for path in _by_rank(folder, "*optim_states.pt")]
    first = _load(_by_rank(folder, "*model_states.pt")[0])
    states = States(schedule=first["lr_scheduler"] or {}, counts={name: first[name] for name in ("global_steps", "global_samples", "skipped_steps")})
    states.buffers = {name: first["module"][name] for name in first["buffer_names"] if name in first["module"]}
    stage = layout(checkpoint).stage
    pieces = _whole(first) if stage == 0 else (_slices if stage == 3 else _stretches)(parts, first["param_shapes"])
    for name, weight, tensors, scalars in pieces:
        states.weights[name], states.tensors[name] = weight, tensors
        states.scalars = scalars
    return states


Piece = tuple[str, "torch.Tensor", dict[str, "torch.Tensor"], dict[str, Any]]


def _whole(model: Mapping[str, Any]) -> Iterator[Piece]:
    """Stage 0: the optimizer numbers the weights as the model lists them, a shared one once and buffers not at all."""
    if "state" not in model["optimizer"]:
        raise checkpoints.CheckpointError(
            "ZeRO-0 in bfloat16 keeps its float32 weights in a form that is not read here. Remedy: go on with zero_stage 0 on the same device"
        )
    seen: set[int] = set()
    names = []
    for name, tensor in model["module"].items():
        if name not in model["buffer_names"] and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            names.append(name)
    for number, name in enumerate(names):
        weight = model["module"][name]
        tensors, scalars = _split(model["optimizer"]["state"].get(number, {}))
        yield name, weight.float(), tensors, scalars


def _stretches(parts: list[dict[str, Any]], shapes: list[Mapping[str, torch.Size]]) -> Iterator[Piece]:
    """Stages 1 and 2."""
    import torch

    for group, named in enumerate(shapes):
        flats = [part["single_partition_of_fp32_groups"][group] for part in parts]
        states = [_split(part["base_optimizer_state"]["state"].get(group, {})) for part in parts]
        for name, shape in named.items():
            places = [part["param_slice_mappings"][group].get(name) for part in parts]

            def joined(sources: list[torch.Tensor], places: list[Any] = places, shape: torch.Size = shape) -> torch.Tensor:
                cut = [source.narrow(0, place.start, place.numel) for source, place in zip(sources, places, strict=True) if place is not None]
                return torch.cat(cut).reshape(shape)

            tensors = {key: joined([tensors[key] for tensors, _ in states]) for key in states[0][0]}
            yield name, joined(flats), tensors, states[0][1]


def _slices(parts: list[dict[str, Any]], shapes: list[Mapping[str, torch.Size]]) -> Iterator[Piece]:
    """Stage 3."""
    import torch

    for group, named in enumerate(shapes):
        flats = [part["fp32_flat_groups"][group] for part in parts]
        states = [_split(part["optimizer_state_dict"]["state"].get(group, {})) for part in parts]
        start = 0
        for name, shape in named.items():
            size = math.prod(shape)
            part = math.ceil(size / len(parts))

            def joined(sources: list[torch.Tensor], start: int = start, part: int = part, shape: torch.Size = shape) -> torch.Tensor:
                return torch.cat([source.narrow(0, start, part) for source in sources])[: math.prod(shape)].reshape(shape)

            tensors = {key: joined([tensors[key] for tensors, _ in states]) for key in states[0][0]}
            yield name, joined(flats), tensors, states[0][1]
            start += part


def _split(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state of one tensor: what it keeps a number, and what is one figure for all of them."""
    tensors = {name: value for name, value in state.items() if getattr(value, "ndim", 0) > 0}
    return tensors, {name: value for name, value in state.items() if name not in tensors}


def _folder(checkpoint: Path) -> Path:
    return checkpoint / (checkpoint / "latest").read_text(encoding="utf-8").strip()


def _by_rank(folder: Path, pattern: str) -> list[Path]:
    def rank(path: Path) -> int:
        found = RANK.search(path.name)
        return int(found[1]) if found else 0

    return sorted(folder.glob(pattern), key=rank)


def _load(path: Path) -> dict[str, Any]:
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found
