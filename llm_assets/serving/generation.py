"""The engine of a decoder: text and conversations to token ids as in training, ids to llama.cpp, which generates for many at once."""

from __future__ import annotations

import asyncio
import json
import math
import weakref
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.corpus.vocabulary import virtual_tokens
from llm_assets.serving.banned_words import is_read_as_written
from llm_assets.serving.engine import EngineError
from llm_assets.serving.llama import Llama, LlamaError, RefusedError, Supervised
from llm_assets.serving.templates import ChatTemplate, ConversationError, Message
from llm_assets.serving.turns import Turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TASK = "generation"
SLOTS = 8  # answers that are generated side by side
END_OF_TURN = "<|im_end|>"  # ends an answer, as the end of a text does
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

    ``adapters`` are trained weights beside the decoder's, by name: a request is answered with one of them, or with the decoder alone.
    """

    def __init__(self, directory: Path, slots: int = SLOTS) -> None:
        from tokenizers import Tokenizer

        settings = _settings(directory)
        self.context: int = settings["context"]
        self.slots = slots
        self.busy = 0  # requests that generate or wait for a slot
        self._model = directory / settings["model"]
        self.adapters: list[str] = list(settings.get("adapters", {}))
        self._turns = Turns()
        try:
            self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises no narrower type
            raise EngineError(f"{directory}/tokenizer.json is no tokenizer ({error}): materialize quantized_model again") from error
        named = _special(directory)
        opening = self.tokenizer.token_to_id(named.get("bos_token", ""))
        self.opening = virtual_tokens(self.tokenizer.get_vocab()) + ([] if opening is None else [opening])
        special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        self._special = sorted(special, key=len, reverse=True)
        self.unread = _unread(self.tokenizer, {named.get("eos_token", ""), END_OF_TURN})
        self._template = _template(directory, named)
        self._head: NDArray[np.float32] | None = None
        try:
            self.llama = self._process(directory, settings)
        except LlamaError as error:
            raise EngineError(str(error)) from error
        self._end = weakref.finalize(self, self.llama.close)

    def _process(self, directory: Path, settings: Mapping[str, Any]) -> Supervised:
        """What generates. Raises ``LlamaError``."""
        return Llama(self._model, self.context, self.slots, [directory / file for file in settings.get("adapters", {}).values()])

    def close(self) -> None:
        """End the process; also done when nobody holds this any more."""
        self._end()

    def described(self) -> dict[str, Any]:
        """What the list of models says of it."""
        return {"task": TASK, "labels": [], "problem": TASK, "context": self.context}

    def probe(self, text: str) -> None:
        """Go on after a text by one token, alone and with each adapter. Raises ``EngineError`` unless that comes with a probability."""

        async def probed(adapter: str) -> list[dict[str, Any]]:
            asked = {"n_predict": 1, "n_probs": 1, "temperature": 0}
            return [event async for events in self.generate(self.text(text), asked, adapter) for event in events]

        for adapter in ("", *self.adapters):
            named = f"{self._model}{adapter and ' with ' + adapter}"
            try:
                found = asyncio.run(probed(adapter))
            except (LlamaError, RefusedError) as error:
                raise EngineError(f"{named}: the probe failed ({error}): materialize quantized_model again") from error
            scored = [one["logprob"] for event in found for one in event.get("completion_probabilities", ())]
            predicted = any(event.get("tokens_predicted") for event in found)
            if not predicted or not all(isinstance(value, float) and math.isfinite(value) for value in scored):
                raise EngineError(f"{named}: the probe got log-probabilities {scored}: materialize quantized_model again")

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
        """The prompt of a text that is to go on, opened as in training, behind a learnt prompt if any; white space at its end is kept."""
        kept = text[len(text.rstrip()) :]
        ids: list[int] = self.tokenizer.encode(normalise(text) + kept, add_special_tokens=False).ids
        return [*self.opening, *ids]

    def piece(self, token: int) -> str:
        """A token as text; part of a character shows as U+FFFD."""
        text: str = self.tokenizer.decode([token], skip_special_tokens=False)
        return text

    async def generate(
        self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str = "", admitted: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """What follows a prompt, in llama.cpp's own events (tools/server/README.md, `POST /completion`); ``admitted`` is called at its turn.

        The last event has ``stop``. Closing this frees the slot. Raises ``RefusedError`` and ``LlamaError``.
        """
        self.busy += 1
        try:
            async with self._turns.of(adapter):
                admitted()
                async with aclosing(self.llama.stream("/completion", self._body(prompt, sampling, adapter))) as events:
                    async for event in events:
                        yield event
        finally:
            self.busy -= 1

    async def complete(self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str = "") -> dict[str, Any]:
        """What follows a prompt at once: llama.cpp's last event. Raises ``RefusedError`` and ``LlamaError``."""
        found: dict[str, Any] = await self.llama.ask("/completion", self._body(prompt, sampling, adapter))
        return found

    def _body(self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str) -> dict[str, Any]:
        """What is asked. Every adapter's weight is stated each time: a request that states none would go on from what another left in its slot."""
        weights = self._weights(adapter)
        return {"prompt": list(prompt), **sampling, **({"lora": weights} if weights else {})}

    def _weights(self, adapter: str) -> list[dict[str, Any]]:
        """Of every adapter what counts: all of the one, nothing of the others; none where there are none."""
        return [{"id": place, "scale": float(name == adapter)} for place, name in enumerate(self.adapters)]

    async def likelihood(self, ids: Sequence[int], top: int = 0, since: int = 1, adapter: str = "") -> list[Likely]:
        """How likely each token from place ``since`` on is after those before it, with the ``top`` likeliest. Raises like ``complete``.

        llama.cpp's server gives no log-probabilities of a prompt, but the hidden states of all its tokens in one pass; the product
        with the output matrix is made here. One pass at the prompt's speed, plus ``2 * tokens * width * vocabulary`` operations.
        """
        found = await (asyncio.shield(self._states_under(adapter, ids)) if self.adapters else self._states(ids))
        return await asyncio.to_thread(self._likely, found[since - 1 : -1], list(ids[since:]), top)

    async def _states(self, ids: Sequence[int]) -> list[list[float]]:
        """The hidden state of each token, [tokens, width]."""
        found: list[dict[str, Any]] = await self.llama.ask("/embeddings", {"content": list(ids), "embd_normalize": -1})
        states: list[list[float]] = found[0]["embedding"]
        return states

    async def _states_under(self, adapter: str, ids: Sequence[int]) -> list[list[float]]:
        """Those under an adapter, or of the model alone beside some; to be ended even when nobody waits, or what it sets might overtake another's.

        That request takes no weights of adapters (llama.cpp reads over ``lora`` in it) but the server's own, which are set before. Each
        request that generates states its own, and in the adapter's turn nobody sets others. A process started in between has none set.
        """
        async with self._turns.of(adapter):
            pid = self.llama.pid
            await self.llama.ask("/lora-adapters", self._weights(adapter))
            found = await self._states(ids)
            if self.llama.pid != pid:
                raise LlamaError("the process that generates died before it read the prompt")
        return found

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


def _unread(tokenizer: Tokenizer, ends: Collection[str]) -> list[int]:
    """Tokens that a grammar reads otherwise than they are written, but for the ``ends`` of an answer: special ones are written as nothing."""
    added = tokenizer.get_added_tokens_decoder()
    special = {token for token, one in added.items() if one.special and one.content not in ends}
    pieces = {token: piece for piece, token in tokenizer.get_vocab(with_added_tokens=False).items() if token not in added}
    return sorted(special | {token for token, piece in pieces.items() if not is_read_as_written(piece)})


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
    for name in (settings["model"], *settings.get("adapters", {}).values()):
        if not (directory / name).is_file():
            raise EngineError(f"{directory} holds no {name}: materialize quantized_model again")
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
