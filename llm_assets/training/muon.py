"""Muon: the momentum of each matrix turned into its nearest orthogonal one (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

All directions of a matrix are learnt alike, where Adam follows the few with large gradients. It looks at a matrix as a whole, so ZeRO must
not cut it: stage 0. The ranks share the work, each orthogonalises some of the matrices and gives them to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import distributed, nn

from llm_assets.training.weights import of_layers

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, the steepest at 0: singular values end within about 0.7 and 1.2
MOMENTUM = 0.95
RMS = 0.2  # of AdamW's updates, to which an orthogonal one is scaled, so that one learning rate serves both (Liu et al. 2025, section 2.2)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for the matrices of the layers, AdamW for all else: embeddings, head, norms.

    One group in the model's order, so that checkpoints number its states as they do any other optimizer's.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        given = list(named)
        super().__init__([weight for _, weight in given], {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.matrices = [weight for name, weight in given if is_matrix(name, weight)]
        self.others = [weight for name, weight in given if not is_matrix(name, weight)]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no closure is used here
        """Update all weights; all ranks call this with the same gradients."""
        group = self.param_groups[0]
        directions = [self._momentum(weight) for weight in self.matrices]
        for weight, direction in zip(self.matrices, _shared(directions), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction, alpha=-group["lr"] * RMS * max(weight.shape) ** 0.5)
        for weight in self.others:
            self._adamw(weight, group)

    def _momentum(self, weight: nn.Parameter) -> torch.Tensor:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: torch.Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(buffer, MOMENTUM)

    def _adamw(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["exp_avg"], size, value=-group["lr"] / (1 - beta1 ** state["step"]))


def is_matrix(name: str, weight: nn.Parameter) -> bool:
    """Whether a weight is one of the layers' matrices; a table of T5's biases by distance is none."""
    return weight.ndim == 2 and of_layers(name) and "relative_attention_bias" not in name


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the orthogonal matrix nearest to one: U V^T of its U S V^T, by ``STEPS`` of a Newton-Schulz iteration, in float32."""
    a, b, c = COEFFICIENTS
    found: torch.Tensor = matrix.float()
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / (found.norm() + 1e-7)
    for _ in range(STEPS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if tall else found


def _shared(directions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each direction made orthogonal: by this rank where it is its turn, the largest first, else received."""
    ranks = distributed.get_world_size() if distributed.is_initialized() else 1
    if ranks == 1:
        return [orthogonal(direction) for direction in directions]
    own = distributed.get_rank()
    load, turn = [0] * ranks, {}
    for place in sorted(range(len(directions)), key=lambda place: -directions[place].numel()):
        turn[place] = load.index(min(load))
        load[turn[place]] += directions[place].numel() * min(directions[place].shape)
    found = [orthogonal(direction) if turn[place] == own else torch.empty_like(direction) for place, direction in enumerate(directions)]
    for rank in range(ranks):
        places = [place for place in turn if turn[place] == rank]
        if not places:
            continue
        flat = torch.cat([found[place].flatten() for place in places])
        distributed.broadcast(flat, rank)
        for place, part in zip(places, torch.split(flat, [found[place].numel() for place in places]), strict=True):
            found[place] = part.view(found[place].shape)
    return found
