"""The engine of a decoder: text and conversations to token ids as in training, ids to llama.cpp, which generates for many at once."""

from __future__ import annotations

import asyncio
import json
import math
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.serving.engine import EngineError
from llm_assets.serving.llama import Llama, LlamaError, RefusedError, Supervised
from llm_assets.serving.templates import ChatTemplate, ConversationError, Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASK = "generation"
SLOTS = 8  # answers that are generated side by side
ROWS = 64  # tokens whose logits are held at a time: 40 MB for a vocabulary of 150,000


class Likely(NamedTuple):
    """A token of a text and how likely the model found it: natural logarithm, rank from 1, and the likeliest tokens there."""

    token: int
    logprob: float
    rank: int
    top: list[tuple[int, float]]


class Generator:
    """A decoder, its tokenizer and its chat template, with a process of llama.cpp that lives as long as this does.

    ``directory`` is that of a quantized_model of the task generation. Raises ``EngineError`` where a file is missing or damaged,
    or was made for another normaliser.
    """

    def __init__(self, directory: Path, slots: int = SLOTS) -> None:
        from tokenizers import Tokenizer

        settings = _settings(directory)
        self.context: int = settings["context"]
        self.slots = slots
        self.busy = 0  # requests that generate or wait for a slot
        self._model = directory / settings["model"]
        try:
            self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises no narrower type
            raise EngineError(f"{directory}/tokenizer.json is no tokenizer ({error}): materialize quantized_model again") from error
        named = _special(directory)
        opening = self.tokenizer.token_to_id(named.get("bos_token", ""))
        self._opening = [] if opening is None else [opening]
        special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        self._special = sorted(special, key=len, reverse=True)
        self._template = _template(directory, named)
        self._head: NDArray[np.float32] | None = None
        try:
            self.llama = self._process(directory, settings)
        except LlamaError as error:
            raise EngineError(str(error)) from error
        self._end = weakref.finalize(self, self.llama.close)

    def _process(self, directory: Path, settings: Mapping[str, Any]) -> Supervised:
        """What generates. Raises ``LlamaError``."""
        return Llama(self._model, self.context, self.slots)

    def close(self) -> None:
        """End the process; also done when nobody holds this any more."""
        self._end()

    def described(self) -> dict[str, Any]:
        """What the list of models says of it."""
        return {"task": TASK, "labels": [], "problem": TASK, "context": self.context}

    def probe(self, text: str) -> None:
        """Go on after a text by one token. Raises ``EngineError`` unless that comes with a probability."""

        async def probed() -> list[dict[str, Any]]:
            asked = {"n_predict": 1, "n_probs": 1, "temperature": 0}
            return [event async for events in self.generate(self.text(text), asked) for event in events]

        try:
            found = asyncio.run(probed())
        except (LlamaError, RefusedError) as error:
            raise EngineError(f"{self._model}: the probe failed ({error}): materialize quantized_model again") from error
        scored = [one["logprob"] for event in found for one in event.get("completion_probabilities", ())]
        predicted = any(event.get("tokens_predicted") for event in found)
        if not predicted or not all(isinstance(value, float) and math.isfinite(value) for value in scored):
            raise EngineError(f"{self._model}: the probe got log-probabilities {scored}: materialize quantized_model again")

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a conversation. Raises ``ConversationError``.

        A turn is normalised as in training, and what it holds of special tokens is taken out: nobody ends a turn from inside it.
        """
        if self._template is None:
            raise ConversationError("this model has no chat template: it is asked at /v1/completions")
        turns = [Message(role=message["role"], content=self._plain(normalise(message["content"]))) for message in messages]
        ids: list[int] = self.tokenizer.encode(self._template.render(turns), add_special_tokens=False).ids
        return ids

    def text(self, text: str) -> list[int]:
        """The prompt of a text that is to go on, opened as documents were in training; white space at its end is kept."""
        kept = text[len(text.rstrip()) :]
        ids: list[int] = self.tokenizer.encode(normalise(text) + kept, add_special_tokens=False).ids
        return [*self._opening, *ids]

    def piece(self, token: int) -> str:
        """A token as text; part of a character shows as U+FFFD."""
        text: str = self.tokenizer.decode([token], skip_special_tokens=False)
        return text

    async def generate(self, prompt: Sequence[int], sampling: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """What follows a prompt, in llama.cpp's own events (tools/server/README.md, `POST /completion`).

        The last event has ``stop``. Closing this frees the slot. Raises ``RefusedError`` and ``LlamaError``.
        """
        self.busy += 1
        try:
            async with aclosing(self.llama.stream("/completion", {"prompt": list(prompt), **sampling})) as events:
                async for event in events:
                    yield event
        finally:
            self.busy -= 1

    async def likelihood(self, ids: Sequence[int], top: int = 0, since: int = 1) -> list[Likely]:
        """How likely each token from place ``since`` on is after those before it, with the ``top`` likeliest.

        llama.cpp's server gives no log-probabilities of a prompt, but the hidden states of all its tokens in one pass; the product
        with the output matrix is made here. One pass at the prompt's speed, plus ``2 * tokens * width * vocabulary`` operations.
        """
        found = await self.llama.ask("/embeddings", {"content": list(ids), "embd_normalize": -1})
        return await asyncio.to_thread(self._likely, found[0]["embedding"][since - 1 : -1], list(ids[since:]), top)

    def _likely(self, hidden: list[list[float]], ids: list[int], top: int) -> list[Likely]:
        """Of each token, by the hidden state before it."""
        import numpy as np

        if self._head is None:
            self._head = output_matrix(self._model)
        states, found = np.asarray(hidden, dtype=np.float32), []
        for start in range(0, len(states), ROWS):
            logits = states[start : start + ROWS] @ self._head.T
            logits -= logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            found += [_likely(row, token, top) for row, token in zip(logits, ids[start:], strict=False)]
        return found

    def _plain(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, "")
        return text


def _likely(row: NDArray[np.float32], token: int, top: int) -> Likely:
    """One token's place in a row of log-probabilities [vocabulary]."""
    best = row.argpartition(-top)[-top:].tolist() if top else []
    ranked = sorted(((one, float(row[one])) for one in best), key=lambda pair: -pair[1])
    return Likely(token, float(row[token]), int((row > row[token]).sum()) + 1, ranked)


def output_matrix(model: Path) -> NDArray[np.float32]:
    """The matrix [vocabulary, width] of a GGUF file that makes logits of hidden states, in float32."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensors = {tensor.name: tensor for tensor in GGUFReader(model).tensors}
    chosen = tensors.get("output.weight") or tensors["token_embd.weight"]
    matrix: NDArray[np.float32] = dequantize(chosen.data, chosen.tensor_type)
    return matrix


def _settings(directory: Path) -> dict[str, Any]:
    files = ("serving.json", "tokenizer.json", "tokenizer_config.json")
    if missing := [name for name in files if not (directory / name).is_file()]:
        raise EngineError(f"{directory} holds no {', '.join(missing)}: materialize quantized_model again")
    settings: dict[str, Any] = json.loads((directory / "serving.json").read_text(encoding="utf-8"))
    if not (directory / settings["model"]).is_file():
        raise EngineError(f"{directory} holds no {settings['model']}: materialize quantized_model again")
    if settings["normaliser"] != NORMALISER_VERSION:
        raise EngineError(
            f"{directory} was trained on text of normaliser {settings['normaliser']}, this release applies {NORMALISER_VERSION}: "
            "materialize the chain again, or serve it with the release that made it"
        )
    return settings


def _special(directory: Path) -> dict[str, str]:
    """The special tokens by role, those that ``tokenizer_config.json`` names."""
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    named = {role: token["content"] if isinstance(token, dict) else token for role, token in settings.items() if role.endswith("_token")}
    return {role: token for role, token in named.items() if isinstance(token, str)}


def _template(directory: Path, named: dict[str, str]) -> ChatTemplate | None:
    path = directory / "chat_template.jinja"
    if not path.is_file():
        return None
    try:
        return ChatTemplate(path.read_text(encoding="utf-8"), named)
    except ConversationError as error:
        raise EngineError(f"{path}: {error}") from error
