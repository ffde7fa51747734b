"""Persons in text that nobody has marked, as LAC's small model sees them (Jiao et al. 2018, arXiv 1807.01882).

Its weights, two bidirectional layers of gated recurrent units and a conditional random field, stand in jieba's archive. What
it takes for a person is left out of what the recogniser takes for no name; its embeddings are those the networks start from,
and the reader starts from all of it but the random field. LAC is licensed under Apache-2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch

from llm_assets.corpus.recogniser.sources import segmenter

UNITS = 128  # of a recurrent layer in each direction, and values of an embedding
PERSON = {16: "begin", 17: "inside", 48: "begin", 49: "inside"}  # its tags nr and PER
BATCH = 256
LONGEST = 400  # characters of a text that are looked at


class Segmenter:
    """LAC's small model: characters to tags."""

    def __init__(self) -> None:
        lines = (line.split("\t") for line in segmenter("word.dic").decode().split("\n"))
        self.rows = {line[1]: int(line[0]) for line in lines if len(line) == 2}
        self.embedding = _tensor("word_emb").reshape(-1, UNITS)
        self.layers = [_layer(number) for number in range(4)]
        self._bias = _tensor("fc_4.b_0")
        self._emit = _tensor("fc_4.w_0").reshape(2 * UNITS, -1)
        self._moves = _tensor("crfw").reshape(-1, len(self._bias))  # from the start, to the end, and from tag to tag

    def persons(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Start and end of every person in each text."""
        found: list[list[tuple[int, int]]] = [[] for _ in texts]
        order = sorted((index for index, text in enumerate(texts) if text), key=lambda index: len(texts[index]))
        for first in range(0, len(order), BATCH):
            some = order[first : first + BATCH]
            for index, tags in zip(some, self._tags([texts[index][:LONGEST] for index in some]), strict=True):
                found[index] = _spans(tags)
        return found

    @torch.no_grad()
    def _tags(self, texts: Sequence[str]) -> list[list[int]]:
        """The likeliest tags of each text (Viterbi)."""
        lengths = [len(text) for text in texts]
        inside = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
        rows = torch.full(inside.shape, self.rows["OOV"])
        for column, text in enumerate(texts):
            rows[: len(text), column] = torch.tensor([self.rows.get(character, self.rows["OOV"]) for character in text])
        states = self.embedding[rows]
        for number in (0, 2):
            states = torch.cat([recurrent(states, inside, self.layers[number + back], bool(back)) for back in range(2)], dim=2)
        scores = states @ self._emit + self._bias
        best, came = self._moves[0] + scores[0], []
        for step in range(1, len(scores)):
            likeliest, origin = (best[:, :, None] + self._moves[2:]).max(dim=1)
            best = torch.where(inside[step][:, None], likeliest + scores[step], best)
            came.append(origin.numpy())
        last = (best + self._moves[1]).argmax(dim=1).tolist()
        return [_path(came, column, length, last[column]) for column, length in enumerate(lengths)]


def _path(came: Sequence[np.ndarray], column: int, length: int, last: int) -> list[int]:
    path = [last]
    for step in range(length - 2, -1, -1):
        path.append(int(came[step][column, path[-1]]))
    return path[::-1]


def _spans(tags: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for place, tag in enumerate(tags):
        kind = PERSON.get(tag)
        if kind == "begin":
            spans.append((place, place + 1))
        elif kind == "inside" and spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
    return spans


Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # inputs to gates and state, their bias, state to gates, state to state


def _layer(number: int) -> Layer:
    inputs = _tensor(f"fc_{number}.w_0").reshape(-1, 3 * UNITS)
    recurrent = _tensor(f"gru_{number}.w_0")
    gates, state = recurrent[: 2 * UNITS * UNITS].reshape(UNITS, 2 * UNITS), recurrent[2 * UNITS * UNITS :].reshape(UNITS, UNITS)
    return inputs, _tensor(f"fc_{number}.b_0") + _tensor(f"gru_{number}.b_0"), gates, state


def recurrent(inputs: torch.Tensor, inside: torch.Tensor, layer: Layer, backwards: bool) -> torch.Tensor:
    """The states, shape [steps, texts, UNITS], of gated recurrent units as Paddle has them: the reset gate acts on the state before its matrix."""
    weights, bias, gates, candidate = layer
    driven = inputs @ weights + bias
    state = torch.zeros(inputs.shape[1], UNITS)
    states = [state] * len(inputs)
    for step in range(len(inputs) - 1, -1, -1) if backwards else range(len(inputs)):
        update, reset = torch.sigmoid(driven[step, :, : 2 * UNITS] + state @ gates).chunk(2, dim=1)
        fresh = torch.tanh(driven[step, :, 2 * UNITS :] + (reset * state) @ candidate)
        state = torch.where(inside[step][:, None], (1 - update) * state + update * fresh, state)
        states[step] = state
    return torch.stack(states)


def _tensor(name: str) -> torch.Tensor:
    """A parameter in Paddle's format: versions, levels, a description of its own length, and float32 values."""
    content = segmenter(f"model_baseline/{name}")
    levels = struct.unpack_from("<Q", content, 4)[0]
    if levels:
        raise ValueError(f"{name} of LAC's model has {levels} levels of detail; only plain tensors are read")
    size = struct.unpack_from("<i", content, 16)[0]
    return torch.from_numpy(np.frombuffer(content, "<f4", offset=20 + size).copy())
