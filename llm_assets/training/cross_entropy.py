"""The loss of a decoder's head without its logits: scores of all tokens are made, used for loss and gradient, and gone, a chunk at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax

from llm_assets.training.heads import IGNORED
from llm_assets.training.job import CHUNK


class LinearCrossEntropy(torch.autograd.Function):
    """The sum over positions of -log p(label), p the softmax of ``hidden @ weight.T``.

    The gradient of the scores, p less 1 at the label, needs nothing from later, so it is multiplied out in the forward pass, as
    Hsu et al. 2024 (Liger Kernel, section 3.2) do on GPUs: three matrix products and two passes over a chunk's scores.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``hidden`` [positions, width], ``weight`` [tokens, width], ``labels`` int64 [positions]; the loss is float32.

        The gradient of the weights is summed in float32 over the chunks: bfloat16 keeps 8 bits, and late chunks would be rounded away.
        """
        wanted = any(ctx.needs_input_grad)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if wanted else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        chunk = CHUNK["cuda" if hidden.is_cuda else "cpu"]
        for start in range(0, len(hidden), chunk):
            part, aims = hidden[start : start + chunk], labels[start : start + chunk, None]
            scores = log_softmax((part @ weight.T).float(), dim=-1)
            loss -= scores.gather(1, aims).sum()
            if to_hidden is None or to_weight is None:
                continue
            scores.exp_().scatter_add_(1, aims, torch.full_like(aims, -1, dtype=scores.dtype))
            gradient = scores.to(hidden.dtype)
            torch.mm(gradient, weight, out=to_hidden[start : start + chunk])
            if gradient.dtype == to_weight.dtype:
                to_weight.addmm_(gradient.T, part)
            else:
                to_weight += gradient.T @ part
            del scores, gradient  # else they would stand beside the next chunk's
        ctx.save_for_backward(to_hidden, to_weight)
        ctx.weight_dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradients, times that of the loss."""
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden.mul_(gradients[0]), to_weight.mul_(gradients[0]).to(ctx.weight_dtype), None


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of -log p(label) in nats; see ``LinearCrossEntropy``."""
    found: torch.Tensor = LinearCrossEntropy.apply(hidden, weight, labels)  # type: ignore[no-untyped-call]
    return found


def labelled_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, count: torch.Tensor | int | None) -> torch.Tensor:
    """The mean of -log p(label) over the labelled positions of a batch, or their sum over ``count``.

    ``hidden`` [sequences, length, width], ``weight`` [tokens, width], ``labels`` int64 [sequences, length].
    """
    asked = (labels != IGNORED).flatten().nonzero().squeeze(1)
    total = linear_cross_entropy(hidden.flatten(0, 1).index_select(0, asked), weight, labels.flatten()[asked])
    return total / (max(1, len(asked)) if count is None else count)
