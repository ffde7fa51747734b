"""Training of the networks that look at candidates, and their way into small integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from llm_assets.corpus.recogniser import lexicon
from llm_assets.corpus.recogniser.networks import LEVELS, SIDE, Window

VALUES, FILTERS, HIDDEN = 48, 48, 96  # of an embedding, of a convolution, of the hidden layer
DROPOUT = 0.2
EPOCHS = 4  # two more brought nothing on development text
BATCH = 1024
RATE = 3e-3
WEIGHT = 127  # the largest weight in steps
CALIBRATION = 20_000  # candidates on which the steps of activations are set
PEAK = 0.9995  # share of activations that the steps reach


class Lesson(NamedTuple):
    """Candidates to learn from."""

    seen: Window
    rows: NDArray[np.int64]  # of the embedding, shape [candidates, 2 SIDE]
    around: NDArray[np.int64]  # likewise for what is read around them, shape [candidates, PLACES]
    is_name: NDArray[np.bool_]
    importance: NDArray[np.float32]


class Scorer(nn.Module):
    """`llm_assets.corpus.recogniser.networks` in floating point, with dropout; ``start`` are the embeddings to start from."""

    def __init__(self, start: NDArray[np.float32]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(start), VALUES, _weight=torch.from_numpy(start.copy()))
        self.words = nn.Embedding(lexicon.MARKS, VALUES)
        nn.init.normal_(self.words.weight, std=0.1)
        self.places = nn.Parameter(torch.randn(4, 2 * SIDE, VALUES) * 0.02)
        self.left, self.right = (nn.Linear(3 * VALUES, FILTERS) for _ in range(2))
        self.hidden = nn.Linear(2 * (SIDE - 2) * FILTERS, HIDDEN)
        self.form = nn.Embedding(4, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, rows: torch.Tensor, words: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
        """Log odds, shape [candidates]."""
        hidden = self.activations(rows, words, form)[1]
        odds: torch.Tensor = self.output(self.drop(hidden))[:, 0]
        return odds

    def activations(self, rows: torch.Tensor, words: torch.Tensor, form: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the convolutions and of the hidden layer."""
        inputs = self.drop(self.embedding(rows) + self.words(words) + self.places[form])
        halves = []
        for half, tap in enumerate((self.left, self.right)):
            part = inputs[:, half * SIDE : (half + 1) * SIDE]
            halves.append(functional.relu(tap(torch.cat([part[:, :-2], part[:, 1:-1], part[:, 2:]], dim=2))).flatten(1))
        convolved = torch.cat(halves, dim=1)
        return convolved, functional.relu(self.hidden(self.drop(convolved)) + self.form(form))


def start_embeddings(known: NDArray[np.float32], rows: Sequence[int], unknown: int) -> NDArray[np.float32]:
    """The principal components of known embeddings: a row for no character, one for all without a row, then those of ``rows``."""
    chosen = known[[unknown, *rows]]
    centred = chosen[1:] - chosen[1:].mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    components = chosen @ directions[:VALUES].T
    components *= 0.5 / components.std()
    return np.concatenate([np.zeros((1, VALUES)), components]).astype(np.float32)


def fit(start: NDArray[np.float32], lesson: Lesson, seed: int) -> Scorer:
    """A network trained on the lesson: AdamW, one cycle of the learning rate, some four minutes on one core."""
    torch.manual_seed(seed)
    scorer = Scorer(start)
    tensors = _tensors(lesson.seen, lesson.rows)
    is_name, importance = torch.from_numpy(lesson.is_name.astype(np.float32)), torch.from_numpy(lesson.importance)
    others = [parameter for name, parameter in scorer.named_parameters() if name != "embedding.weight"]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": [scorer.embedding.weight], "weight_decay": 0.02}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.01)
    steps = EPOCHS * (len(is_name) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(is_name)), 0.0
        for some in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
            odds = scorer(*(tensor[some] for tensor in tensors))
            loss = (functional.binary_cross_entropy_with_logits(odds, is_name[some], reduction="none") * importance[some]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"network {seed}, epoch {epoch + 1}: loss {total / max(steps // EPOCHS, 1):.4f}", flush=True)
    return scorer.eval()


@torch.no_grad()
def integers(scorer: Scorer, lesson: Lesson) -> dict[str, NDArray[np.generic]]:
    """The fields of `llm_assets.corpus.recogniser.networks.Trained`, steps of activations set on candidates of the lesson."""
    some = np.random.default_rng(0).choice(len(lesson.is_name), min(CALIBRATION, len(lesson.is_name)), replace=False)
    tensors = _tensors(lesson.seen.of(some), lesson.rows[some])
    convolved, hidden = (float(np.quantile(layer.numpy(), PEAK)) / LEVELS for layer in scorer.activations(*tensors))
    added = {"embedding": scorer.embedding.weight, "words": scorer.words.weight, "places": scorer.places}
    unit = max(float(weight.abs().max()) for weight in added.values()) / WEIGHT
    arrays: dict[str, NDArray[np.generic]] = {name: whole(weight.numpy() / unit, np.int8) for name, weight in added.items()}
    taps = np.stack([tap.weight.numpy() for tap in (scorer.left, scorer.right)])  # [2, F, 3 D]
    tap_units = np.abs(taps).max(axis=2) / WEIGHT
    by_place = whole(taps / tap_units[:, :, None], np.int8).reshape(2, FILTERS, 3, VALUES)
    arrays["taps"] = by_place.transpose(0, 3, 2, 1).reshape(2, VALUES, 3 * FILTERS)
    arrays["taps_bias"] = whole(np.stack([tap.bias.numpy() for tap in (scorer.left, scorer.right)]) / (unit * tap_units), np.int32)
    arrays["taps_scale"] = (unit * tap_units / convolved).astype(np.float32)
    weight = scorer.hidden.weight.numpy()  # [H, inputs]
    hidden_units = np.abs(weight).max(axis=1) / WEIGHT
    arrays["hidden"] = whole(weight / hidden_units[:, None], np.int8).T
    arrays["hidden_bias"] = whole((scorer.hidden.bias + scorer.form.weight).numpy() / (convolved * hidden_units), np.int32)
    arrays["hidden_scale"] = (convolved * hidden_units / hidden).astype(np.float32)
    output = scorer.output.weight.numpy()[0]
    output_unit = float(np.abs(output).max()) / WEIGHT
    arrays["output"] = whole(output / output_unit, np.int8)
    arrays["output_scale"] = np.array([hidden * output_unit, scorer.output.bias.item()], np.float32)
    return arrays


def _tensors(seen: Window, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(rows.astype(np.int32)), torch.from_numpy(seen.words.astype(np.int32)), torch.from_numpy(seen.form)


def whole(values: NDArray[np.floating], kind: type[np.signedinteger]) -> NDArray[np.signedinteger]:
    """The nearest steps: of a weight at most WEIGHT, of a bias what leaves the sums their room below 2^24."""
    limit = WEIGHT if kind is np.int8 else 1 << 22
    nearest: NDArray[np.signedinteger] = np.clip(np.rint(values), -limit, limit).astype(kind)
    return nearest
