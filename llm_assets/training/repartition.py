"""Going on from a checkpoint in another layout: with another number of processes, or another ZeRO stage.

The batch, and so the order of the samples, is the same in both layouts (``micro_batch`` x ``accumulation`` x processes stays), and
every state is restored to the bit, so what differs afterwards is rounding: sums over ranks and passes in another order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import distributed

from llm_assets.training.states import States


class StatesError(RuntimeError):
    """A checkpoint's states are not those of the model at hand."""


def restore(engine: Any, states: States) -> None:
    """Put whole states into a fresh DeepSpeed engine, whatever its stage and number of ranks; all ranks call this.

    Raises ``StatesError`` where the weights are not those of the engine's model.
    """
    named = dict(engine.module.named_parameters())
    if named.keys() != states.weights.keys():
        raise StatesError(f"the checkpoint holds other weights than the model: {', '.join(sorted(named.keys() ^ states.weights.keys())[:5])}")
    with torch.no_grad():
        for name, buffer in engine.module.named_buffers():
            if name in states.buffers:
                buffer.copy_(states.buffers[name])
        stage = engine.zero_optimization_stage()
        (_restore_whole, _restore_stretches, _restore_stretches, _restore_slices)[stage](engine, named, states)
    engine.lr_scheduler.load_state_dict(states.schedule)
    for group, rate in zip(engine.optimizer.param_groups, states.schedule["_last_lr"], strict=True):
        group["lr"] = rate  # the scheduler sets it after an update, and the next update comes first
    for name, count in states.counts.items():
        setattr(engine, name, count)


def _restore_whole(engine: Any, named: dict[str, torch.nn.Parameter], states: States) -> None:
    for name, parameter in named.items():
        parameter.copy_(states.weights[name])
        engine.optimizer.state[parameter] = _copied(states.scalars) | {key: value.clone() for key, value in states.tensors[name].items()}


def _restore_stretches(engine: Any, named: dict[str, torch.nn.Parameter], states: States) -> None:
    """Stages 1 and 2: this rank's stretch of each group, as DeepSpeed mapped it when the engine was made."""
    inner = engine.optimizer.optimizer
    flats = [group["params"][0] for group in inner.param_groups]
    for flat in flats:
        keys = next(iter(states.tensors.values())).keys()
        inner.state[flat] = _copied(states.scalars) | {key: torch.zeros_like(flat) for key in keys}
    for name, parameter in named.items():
        parameter.copy_(states.weights[name])
        place = parameter._hp_mapping  # type: ignore[attr-defined]  # None where this rank has no piece of it
        if place is None:
            continue
        flat, own, theirs = flats[place.param_group_index], place.hp_fragment_address, place.lp_fragment_address
        for key, whole in _by_key(states, name).items():
            target = flat if key is None else inner.state[flat][key]
            target.narrow(0, own.start, own.numel).copy_(whole.flatten().narrow(0, theirs.start, theirs.numel))


def _restore_slices(engine: Any, named: dict[str, torch.nn.Parameter], states: States) -> None:
    """Stage 3: this rank's slice of each weight, padded where the weight does not divide."""
    import deepspeed

    optimizer, inner = engine.optimizer, engine.optimizer.optimizer
    keys = next(iter(states.tensors.values())).keys()
    for flat in optimizer.fp32_partitioned_groups_flat:
        inner.state[flat] = _copied(states.scalars) | {key: torch.zeros_like(flat) for key in keys}
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for name, parameter in named.items():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if rank == 0:
                parameter.copy_(states.weights[name])
        group, start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        flat = optimizer.fp32_partitioned_groups_flat[group]
        for key, whole in _by_key(states, name).items():
            target = flat if key is None else inner.state[flat][key]
            target.narrow(0, start, size).copy_(_slice(whole, rank, world, size))


def _by_key(states: States, name: str) -> dict[str | None, torch.Tensor]:
    """A weight, under None, and what the optimizer keeps of it."""
    found: dict[str | None, torch.Tensor] = {None: states.weights[name]}
    return found | states.tensors[name]


def _slice(whole: torch.Tensor, rank: int, world: int, size: int) -> torch.Tensor:
    padded = torch.zeros(size * world, dtype=whole.dtype)
    padded[: math.prod(whole.shape)] = whole.flatten()
    return padded[rank * size : (rank + 1) * size]


def _copied(scalars: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in scalars.items()}
