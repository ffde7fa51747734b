"""An answer while it is made: from llama.cpp's events to OpenAI's objects, and to the line of the request log."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, ClassVar, Generic, TypeVar

from llm_assets.serving.answers import ANSWER, FINISHES, new_id
from llm_assets.serving.completion_wire import ChatRequest, CompletionRequest
from llm_assets.serving.errors import ApiError
from llm_assets.serving.generation import Generator, Likely
from llm_assets.serving.llama import LlamaError
from llm_assets.serving.llama_server import LONGEST_BATCH
from llm_assets.serving.templates import ConversationError, Message

Asked = TypeVar("Asked", ChatRequest, CompletionRequest)
Events = Sequence[dict[str, Any]]

FINISHED = {"eos": "stop", "word": "stop", "limit": "length"}  # llama.cpp's reasons to OpenAI's


class Answer(ABC, Generic[Asked]):
    """One answer of one release. Raises ``ApiError`` for a request that its model cannot answer."""

    kind: ClassVar[str]  # what its id begins with
    chunks: ClassVar[str]  # the ``object`` of a streamed piece
    param: ClassVar[str]  # the field that holds the prompt

    def __init__(self, request: Asked, release: str, engine: Generator) -> None:
        self.request: Asked = request
        self.release, self.engine = release, engine
        self.id, self.created = new_id(self.kind), int(time.time())
        self.prompt = self._prompt()
        self.likelihood: list[Likely] = []  # of the prompt's tokens but the first
        self.text, self.tokens, self.finish = "", 0, ""
        self.waited = 0.0  # milliseconds, for the turn of its adapter: what others ask for, and no slowness of the release
        self.scored: list[dict[str, Any]] = []  # llama.cpp's log-probabilities of the tokens, where asked for
        if not self.prompt:
            raise ApiError(HTTPStatus.BAD_REQUEST, "the prompt holds no token: send some text", self.param)
        if len(self.prompt) >= engine.context:
            said = f"the prompt has {len(self.prompt)} tokens, and the context of {request.model} is {engine.context} with the answer: shorten it"
            raise ApiError(HTTPStatus.BAD_REQUEST, said, self.param)
        if self.wants_likelihood and len(self.prompt) > LONGEST_BATCH:
            said = f"the prompt has {len(self.prompt)} tokens; log-probabilities are given of {LONGEST_BATCH} at most"
            raise ApiError(HTTPStatus.BAD_REQUEST, said, "prompt_logprobs")
        self._sampling = self._settings()

    @property
    def wants_likelihood(self) -> bool:
        """Whether the prompt's log-probabilities are asked for."""
        return self.request.prompt_logprobs is not None

    async def events(self) -> AsyncGenerator[Events]:
        """What llama.cpp says, once it was asked; nothing where no token is asked for."""
        if self.wants_likelihood:
            top = max(self.request.prompt_logprobs or 0, self.request.alternatives() or 0)
            self.likelihood = await self.engine.likelihood(self.prompt, top, adapter=self.request.adapter)
        if self.request.length() == 0:
            self.finish = "length"
            return
        asked = time.perf_counter()

        def admitted() -> None:
            self.waited = (time.perf_counter() - asked) * 1000

        async with aclosing(self.engine.generate(self.prompt, self._sampling, self.request.adapter, admitted)) as source:
            async for events in source:
                yield events

    def take(self, events: Events) -> tuple[str, list[dict[str, Any]]]:
        """Note what came; the new text, and the new log-probabilities."""
        text = "".join(event["content"] for event in events)
        scored = [one for event in events for one in event.get("completion_probabilities", ())]
        self.text += text
        self.scored += scored
        last = events[-1]
        self.tokens = last.get("tokens_predicted", self.tokens)
        if last["stop"]:
            self.finish = FINISHED.get(last["stop_type"], "stop")
        return text, scored

    def check_whole(self) -> None:
        """Raise ``LlamaError`` where the last event has not come."""
        if not self.finish:
            raise LlamaError("the process that generates broke off")

    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        read = len(self.prompt)
        return {"prompt_tokens": read, "completion_tokens": self.tokens, "total_tokens": read + self.tokens}

    def line(self, client: str, began: float) -> dict[str, Any]:
        """A line of the request log: the answer first, so that a vote on the id's first text is one on it, then the turns before it."""
        asked: list[tuple[str, str]] = self._turns()
        return {
            "id": self.id,
            "chain": self.request.chain,
            "release": self.release,
            **({"adapter": self.request.adapter} if self.request.adapter else {}),
            "client": client,
            "texts": [self.text, *(content for _, content in asked)],
            "labels": [ANSWER, *(role for role, _ in asked)],
            "probs": [[]] * (1 + len(asked)),
            "tokens": {"prompt": len(self.prompt), "completion": self.tokens},
            "finish": self.finish or FINISHES[-1],
            "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        """Chunks before the first text."""
        yield from ()

    def chunk(self, events: Events) -> dict[str, Any]:
        """A streamed piece."""
        text, scored = self.take(events)
        return self._chunk([self._choice(text, scored, None)])

    def closing(self) -> Iterator[dict[str, Any]]:
        """Chunks after the last text: why it ended, and the usage where asked for."""
        yield self._chunk([self._choice("", [], self.finish)])
        if self.request.stream_options and self.request.stream_options.include_usage:
            yield {**self._chunk([]), "usage": self.usage()}

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """The answer at once."""

    @abstractmethod
    def _prompt(self) -> list[int]:
        """The tokens that llama.cpp reads. Raises ``ApiError`` for what has none."""

    @abstractmethod
    def _turns(self) -> list[tuple[str, str]]:
        """Who said what before the answer, as its client wrote it."""

    @abstractmethod
    def _choice(self, text: str, scored: Sequence[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        """A streamed piece in this object's shape."""

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head(self.chunks), "choices": choices}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.request.model, "release": self.release}

    def _settings(self) -> dict[str, Any]:
        """What llama.cpp is asked for."""
        settings = self.request.sampling(self.engine.tokenizer.get_vocab_size())
        room = self.engine.context - len(self.prompt)
        alternatives = self.request.alternatives()
        if self.request.banned_words:
            settings["logit_bias"] += [(token, False) for token in self.engine.unread]
        return {**settings, "n_predict": min(self.request.length() or room, room), "n_probs": 0 if alternatives is None else max(1, alternatives)}

    def _prompt_logprobs(self) -> list[dict[str, Any] | None] | None:
        """As vLLM gives them: for each token its own log-probability and those of the likeliest, by id; none for the first."""
        if self.request.prompt_logprobs is None:
            return None
        top: int = self.request.prompt_logprobs or 0
        return [None, *(self._by_id(one, top) for one in self.likelihood)]

    def _by_id(self, one: Likely, top: int) -> dict[str, Any]:
        ranked: list[tuple[int, float, int]] = [(token, logprob, rank) for rank, (token, logprob) in enumerate(one.top[:top], 1)]
        entries = {token: (logprob, rank) for token, logprob, rank in [*ranked, (one.token, one.logprob, one.rank)]}
        piece = self.engine.piece
        return {str(token): {"logprob": logprob, "rank": rank, "decoded_token": piece(token)} for token, (logprob, rank) in entries.items()}


class ChatAnswer(Answer[ChatRequest]):
    """The assistant's next turn."""

    kind, chunks, param = "chatcmpl", "chat.completion.chunk", "messages"

    def opening(self) -> Iterator[dict[str, Any]]:
        """The chunk that says whose turn it is, and the prompt's log-probabilities where asked for."""
        delta = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        more = {} if self.request.prompt_logprobs is None else {"prompt_logprobs": self._prompt_logprobs()}
        yield {**self._chunk([delta]), **more}

    def whole(self) -> dict[str, Any]:
        """OpenAI's chat completion."""
        said = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": said, "logprobs": self._logprobs(self.scored), "finish_reason": self.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage(), "prompt_logprobs": self._prompt_logprobs()}

    def _prompt(self) -> list[int]:
        turns = [turn.message() for turn in self.request.messages]
        try:
            return self.engine.chat([Message(role=turn["role"], content=turn["content"]) for turn in turns])
        except ConversationError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, str(error), "messages") from error

    def _turns(self) -> list[tuple[str, str]]:
        return [(turn["role"], turn["content"]) for turn in (each.message() for each in self.request.messages)]

    def _choice(self, text: str, scored: Sequence[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text} if text else {}, "logprobs": self._logprobs(scored), "finish_reason": finish}

    def _logprobs(self, scored: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        if self.request.alternatives() is None:
            return None
        count = self.request.top_logprobs
        content = [{**self._entry(one), "top_logprobs": [self._entry(other) for other in one["top_logprobs"][:count]]} for one in scored]
        return {"content": content, "refusal": None}

    def _entry(self, one: dict[str, Any]) -> dict[str, Any]:
        return {"token": self.engine.piece(one["id"]), "bytes": one["bytes"], "logprob": one["logprob"]}


async def written(request: ChatRequest, release: str, engine: Generator) -> ChatAnswer:
    """The answer to a request, once all of it is there. Raises ``ApiError``, ``LlamaError`` and ``RefusedError``."""
    answer = ChatAnswer(request, release, engine)
    async with aclosing(answer.events()) as source:
        async for events in source:
            answer.take(events)
    answer.check_whole()
    return answer


class CompletionAnswer(Answer[CompletionRequest]):
    """How a text goes on."""

    kind, chunks, param = "cmpl", "text_completion", "prompt"

    @property
    def wants_likelihood(self) -> bool:
        """Whether the prompt's log-probabilities are asked for, by name or by an echo with log-probabilities."""
        return super().wants_likelihood or (self.request.echo and self.request.logprobs is not None)

    def opening(self) -> Iterator[dict[str, Any]]:
        """The prompt, where it is to be echoed."""
        if self.request.echo:
            yield self._chunk([{"index": 0, "text": self._asked(), "logprobs": self._echoed(), "finish_reason": None}])

    def whole(self) -> dict[str, Any]:
        """OpenAI's completion."""
        asked, before = (self._asked(), self._echoed()) if self.request.echo else ("", None)
        after = self._logprobs(self.scored, len(asked))
        both = {key: before[key] + after[key] for key in after} if before and after else after
        choice = {
            "index": 0,
            "text": asked + self.text,
            "logprobs": both,
            "finish_reason": self.finish,
            "prompt_logprobs": self._prompt_logprobs(),
        }
        return {**self._head("text_completion"), "choices": [choice], "usage": self.usage()}

    def _prompt(self) -> list[int]:
        if isinstance(self.request.prompt, str):
            return self.engine.text(self.request.prompt)
        vocabulary = self.engine.tokenizer.get_vocab_size()
        if wrong := [token for token in self.request.prompt if not 0 <= token < vocabulary]:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"prompt holds {wrong[0]}, which is no token: they are 0 to {vocabulary - 1}", "prompt")
        ids: list[int] = self.request.prompt
        return ids

    def _turns(self) -> list[tuple[str, str]]:
        return [(self.param, self._asked())]

    def _asked(self) -> str:
        """The prompt as its client wrote it."""
        prompt = self.request.prompt
        return prompt if isinstance(prompt, str) else str(self.engine.tokenizer.decode(prompt, skip_special_tokens=False))

    def _choice(self, text: str, scored: Sequence[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        start = len(self.text) - len(text) + (len(self._asked()) if self.request.echo else 0)
        return {"index": 0, "text": text, "logprobs": self._logprobs(scored, start), "finish_reason": finish}

    def _logprobs(self, scored: Sequence[dict[str, Any]], start: int) -> dict[str, Any] | None:
        if self.request.logprobs is None:
            return None
        tokens = [self.engine.piece(one["id"]) for one in scored]
        tops = [{self.engine.piece(other["id"]): other["logprob"] for other in one["top_logprobs"][: self.request.logprobs]} for one in scored]
        return {"tokens": tokens, "token_logprobs": [one["logprob"] for one in scored], "top_logprobs": tops, "text_offset": _offsets(tokens, start)}

    def _echoed(self) -> dict[str, Any] | None:
        """The prompt's log-probabilities, none for its first token."""
        if self.request.logprobs is None:
            return None
        tokens = [self.engine.piece(token) for token in self.prompt]
        tops = [{self.engine.piece(token): logprob for token, logprob in one.top[: self.request.logprobs]} for one in self.likelihood]
        values = [None, *(one.logprob for one in self.likelihood)]
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": [None, *tops], "text_offset": _offsets(tokens, 0)}


def _offsets(tokens: Sequence[str], start: int) -> list[int]:
    """Where each token begins in the text, in characters."""
    found = []
    for token in tokens:
        found.append(start)
        start += len(token)
    return found
