"""A plain GPT of nanochat's kind, in plain torch: what the training worker's bits per byte are compared with.

``python -m benchmarks.plain_gpt SETTINGS.json`` trains one process over all cores for so many seconds and prints its bits per byte.
Model and recipe after https://github.com/karpathy/nanochat (gpt.py, base_train.py): width 64 a layer, rotary positions, norms without
weights after the embeddings, in each layer and of queries and keys, squared ReLU of four times the width, untied head whose logits are
capped at 15, no biases, output projections and head starting at 0; Muon at 0.02 for the layers' matrices (momentum .85 to .95 over
300 updates), AdamW at 0.2 for embeddings and 0.004 for the head, both times (width / 768)^-0.5, betas .8 and .95, no weight decay; constant,
and in the last fifth of the time down to 0 on a line; gradients clipped at 1. Of the machine's size: batches of 4,096 tokens, float32, heads of 64.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy, relu, rms_norm, scaled_dot_product_attention

from llm_assets.corpus.vocabulary import bytes_of_tokens
from llm_assets.training.batches import read_layout
from llm_assets.training.causal import CollateDocuments
from llm_assets.training.heads import IGNORED
from llm_assets.training.muon import orthogonal

HEAD, BATCH = 64, 4096  # numbers of a head; tokens of an update
CAP = 15.0
MUON, EMBEDDING, UNEMBEDDING = 0.02, 0.2, 0.004
WARMDOWN = 0.2


def norm(tensor: torch.Tensor) -> torch.Tensor:
    """Divided by its root mean square."""
    return rms_norm(tensor, (tensor.shape[-1],))


class Layer(nn.Module):
    """Attention and feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        """[blocks, context, width]."""
        inner, shape = norm(stream), (*stream.shape[:2], -1, HEAD)
        query, key = (norm(rotated(part(inner).view(shape), cosine, sine)).transpose(1, 2) for part in (self.query, self.key))
        attended = scaled_dot_product_attention(query, key, self.value(inner).view(shape).transpose(1, 2), is_causal=True)
        stream = stream + self.out(attended.transpose(1, 2).reshape(stream.shape))
        return stream + self.down(relu(self.up(norm(stream))).square())


def rotated(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021)."""
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cosine + second * sine, second * cosine - first * sine), -1)


class PlainGpt(nn.Module):
    """The model."""

    def __init__(self, vocabulary: int, layers: int, context: int) -> None:
        super().__init__()
        width = 64 * layers
        self.embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embeddings.weight)
        for name, weight in self.layers.named_parameters():
            rows, columns = weight.shape
            nn.init.normal_(weight, std=min(1.0, math.sqrt(rows / columns)) / math.sqrt(columns))
            if name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(weight)
        nn.init.zeros_(self.head.weight)
        angles = torch.outer(torch.arange(context).float(), 10_000.0 ** -(torch.arange(0, HEAD, 2) / HEAD))
        self.cosine, self.sine = angles.cos()[:, None], angles.sin()[:, None]

    def forward(self, ids: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        """The loss in nats of ``labels`` int64 [blocks, context]."""
        stream = norm(self.embeddings(ids))
        for layer in self.layers:
            stream = layer(stream, self.cosine[: ids.shape[1]], self.sine[: ids.shape[1]])
        logits = self.head(norm(stream)).float()
        return cross_entropy((CAP * torch.tanh(logits / CAP)).flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction=reduction)


def main(path: Path) -> None:
    """Train as the settings say."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    folder, budget = Path(settings["tokens"]), settings["seconds"]
    layout, encoder = read_layout(folder), Tokenizer.from_file(str(Path(settings["tokenizer"]) / "tokenizer.json"))
    blocks = numpy.fromfile(folder / "tokens.bin", dtype=layout["dtype"]).reshape(layout["blocks"], layout["context"]).astype(numpy.int64)
    train, held_out = blocks[: layout["train_blocks"]], blocks[layout["train_blocks"] :]
    torch.manual_seed(17)
    model = PlainGpt(layout["vocabulary_size"], settings["layers"], layout["context"])
    scale = (64 * settings["layers"] / 768) ** -0.5
    adam = torch.optim.AdamW(
        [
            {"params": [model.embeddings.weight], "lr": EMBEDDING * scale},
            {"params": [model.head.weight], "lr": UNEMBEDDING * scale},
        ],
        betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True,
    )  # fmt: skip
    highest = [group["lr"] for group in adam.param_groups]
    matrices = list(model.layers.parameters())
    momenta = [torch.zeros_like(weight) for weight in matrices]
    size, done, started = BATCH // layout["context"], 0, time.perf_counter()
    order = numpy.concatenate([numpy.random.default_rng([17, epoch]).permutation(len(train)) for epoch in range(100)])
    while (spent := time.perf_counter() - started) < budget:
        ids = torch.from_numpy(train[order[done * size : (done + 1) * size]])
        labels = torch.full_like(ids, IGNORED)
        labels[:, :-1] = ids[:, 1:]
        model(ids, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = min(1.0, (1 - spent / budget) / WARMDOWN)
        for group, rate in zip(adam.param_groups, highest, strict=True):
            group["lr"] = rate * share
        adam.step()
        update_matrices(matrices, momenta, 0.85 + 0.1 * min(1.0, done / 300), MUON * share)
        model.zero_grad()
        done += 1
    seconds = time.perf_counter() - started
    bits = bits_per_byte(
        model, held_out, torch.tensor(bytes_of_tokens(encoder)), CollateDocuments(encoder.token_to_id("[PAD]"), encoder.token_to_id("[CLS]"))
    )
    print(json.dumps({"bits_per_byte": bits, "tokens": done * size * layout["context"], "seconds": seconds}))


@torch.no_grad()
def update_matrices(matrices: list[Any], momenta: list[torch.Tensor], momentum: float, rate: float) -> None:
    """Muon with Nesterov momentum, scaled by the root of rows over columns where there are more."""
    for weight, buffer in zip(matrices, momenta, strict=True):
        buffer.lerp_(weight.grad, 1 - momentum)
        direction = orthogonal(weight.grad.lerp(buffer, momentum))
        weight.add_(direction, alpha=-rate * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5)


@torch.no_grad()
def bits_per_byte(model: PlainGpt, blocks: numpy.ndarray, lengths: torch.Tensor, collate: CollateDocuments) -> float:
    """Over the same labels as the training worker's evaluation; what stands before a document in its block is seen."""
    nats, written = 0.0, 0
    for start in range(0, len(blocks), 16):
        batch = collate(list(blocks[start : start + 16]))
        labels = batch["labels"]
        nats += float(model(batch["input_ids"], labels, "sum"))
        written += int(lengths[labels[labels != IGNORED]].sum())
    return nats / math.log(2) / written


if __name__ == "__main__":
    main(Path(sys.argv[1]))
