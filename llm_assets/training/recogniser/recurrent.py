"""Training of the network that reads around candidates, from LAC's small model on, and its way into small integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from llm_assets.corpus.recogniser.networks import LEVELS
from llm_assets.corpus.recogniser.recurrent import CURVE, FINER, REACHED, STEPS, looked_at
from llm_assets.training.recogniser.networks import CALIBRATION, PEAK, WEIGHT, Lesson, whole
from llm_assets.training.recogniser.segmenter import UNITS, Layer, recurrent

HIDDEN = 96  # units of the hidden layer
DROPOUT = 0.2
BATCH = 256
RATES = (1e-3, 5e-4)  # of learning, lesson by lesson
BEGUN = 0.25  # share of LAC's own weights in the layers at the end: what it knows of rare words comes back (Wortsman et al. 2022, arXiv 2109.01903)
NORM = 1.0  # of the gradient, at most: recurrent layers now and then have a large one


class Recurrence(nn.Module):
    """A recurrent layer of LAC's, in one direction, that may learn on."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.inputs, self.bias, self.gates, self.fresh = (nn.Parameter(tensor.clone()) for tensor in layer)

    @property
    def layer(self) -> Layer:
        """As `segmenter.recurrent` takes it."""
        return self.inputs, self.bias, self.gates, self.fresh


class Scorer(nn.Module):
    """`llm_assets.corpus.recogniser.recurrent` in floating point, with dropout; the embeddings stay as they are."""

    embedding: torch.Tensor

    def __init__(self, embedding: NDArray[np.float32], layers: Sequence[Layer]) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.from_numpy(embedding))
        self.recurrences = [Recurrence(layer) for layer in layers]
        self.layers = nn.ModuleList(self.recurrences)
        self.hidden = nn.Linear(4 * 2 * UNITS, HIDDEN)
        self.form = nn.Embedding(4, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, rows: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
        """Log odds, shape [candidates]; ``rows`` of the embedding for what is read around each."""
        odds: torch.Tensor = self.output(self.drop(self.activations(rows, form)))[:, 0]
        return odds

    def activations(self, rows: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
        """Those of the hidden layer."""
        written, held = rows.T > 0, self.embedding[rows.T]
        for onwards, backwards in zip(self.recurrences[::2], self.recurrences[1::2], strict=True):
            held = torch.cat([recurrent(held, written, onwards.layer, False), recurrent(held, written, backwards.layer, True)], dim=2)
        seen = torch.cat([held[place, torch.arange(len(form))] for place in looked_at(form.numpy())], dim=1)
        hidden: torch.Tensor = functional.relu(self.hidden(self.drop(seen)) + self.form(form))
        return hidden


def fit(embedding: NDArray[np.float32], layers: Sequence[Layer], lessons: Iterable[Lesson]) -> Scorer:
    """A network trained on the lessons, one after the other, each candidate once: some ten minutes of one core a lesson.

    AdamW, one cycle of the learning rate a lesson.
    """
    torch.manual_seed(0)
    scorer = Scorer(embedding, layers)
    for number, (lesson, rate) in enumerate(zip(lessons, RATES, strict=True)):
        loss = learn(scorer, lesson, rate)
        print(f"reader, lesson {number + 1}: loss {loss:.4f}", flush=True)
        torch.manual_seed(number + 1)  # what follows depends on the weights alone
    with torch.no_grad():
        for recurrence, began in zip(scorer.recurrences, layers, strict=True):
            for learnt, before in zip(recurrence.layer, began, strict=True):
                learnt.lerp_(before, BEGUN)
    return scorer.eval()


def learn(scorer: Scorer, lesson: Lesson, rate: float) -> float:
    """One lesson; the mean loss."""
    rows, form = _tensors(lesson)
    is_name, importance = torch.from_numpy(lesson.is_name.astype(np.float32)), torch.from_numpy(lesson.importance)
    batches = torch.randperm(len(is_name))[: len(is_name) // BATCH * BATCH].view(-1, BATCH)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(batches) + 1, pct_start=0.1)
    total = 0.0
    for some in batches:
        odds = scorer(rows[some], form[some])
        loss = (functional.binary_cross_entropy_with_logits(odds, is_name[some], reduction="none") * importance[some]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(scorer.parameters(), NORM)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / max(len(batches), 1)


@torch.no_grad()
def integers(scorer: Scorer, lesson: Lesson) -> dict[str, NDArray[np.generic]]:
    """The arrays of which `llm_assets.corpus.recogniser.recurrent.unpack` makes a reader."""
    unit = float(scorer.embedding.abs().max()) / WEIGHT
    arrays: dict[str, NDArray[np.generic]] = {"embedding": whole(scorer.embedding.numpy() / unit, np.int8)}
    for number, recurrence in enumerate(scorer.recurrences):
        inputs, bias, gates, fresh = (tensor.numpy() for tensor in recurrence.layer)
        for name, weight, step in (
            ("inputs", inputs, unit if number < 2 else 1 / STEPS),
            ("states", np.concatenate([gates, fresh], axis=1), 1 / STEPS),
        ):
            units = np.abs(weight).max(axis=0) / WEIGHT
            arrays[f"{name}_{number}"] = whole(weight / units, np.int8)
            arrays[f"{name}_scale_{number}"] = (step * units * CURVE).astype(np.float32)
        arrays[f"bias_{number}"] = (bias * CURVE + REACHED * CURVE).astype(np.float32)
    some = np.random.default_rng(0).choice(len(lesson.is_name), min(CALIBRATION, len(lesson.is_name)), replace=False)
    rows, form = _tensors(lesson)
    hidden = float(np.quantile(scorer.activations(rows[some], form[some]).numpy(), PEAK)) / LEVELS
    weight = scorer.hidden.weight.numpy()  # [H, inputs]
    units = np.abs(weight).max(axis=1) / WEIGHT * FINER / STEPS
    arrays["hidden"] = whole(weight / units[:, None] * FINER / STEPS, np.int8).T
    arrays["hidden_bias"] = whole((scorer.hidden.bias + scorer.form.weight).numpy() / units, np.int32)
    arrays["hidden_scale"] = (units / hidden).astype(np.float32)
    output = scorer.output.weight.numpy()[0]
    output_unit = float(np.abs(output).max()) / WEIGHT
    arrays["output"] = whole(output / output_unit, np.int8)
    arrays["output_scale"] = np.array([hidden * output_unit, scorer.output.bias.item()], np.float32)
    return arrays


def _tensors(lesson: Lesson) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(lesson.around), torch.from_numpy(lesson.seen.form)
