"""What goes over the wire where text is generated: OpenAI's requests, with the fields of vLLM and llama.cpp that it lacks, and its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from pydantic import AliasChoices, BaseModel, Field, JsonValue

from llm_assets.serving.banned_words import grammar_without
from llm_assets.serving.engines import BESIDE
from llm_assets.serving.errors import ApiError
from llm_assets.serving.wire import Text

STOPS = 16  # stop strings a request
LIKELIEST = 20  # alternatives a token, at most
DEPTH = 32  # of a JSON schema: llama.cpp turns it into a grammar by recursion
GRAMMAR = 1 << 16  # characters of a grammar or a schema
SEED = 1 << 32
WORDS, CHARACTERS = 64, 1024  # that a request bans, and of them all: each character is a rule of a grammar
TRANSITIONS = 1 << 14  # of those rules: each tells of the words' different first letters; so many make 350,000 characters of a grammar


class Format(BaseModel):
    """A JSON schema by name, as OpenAI has it."""

    name: Text = "answer"
    schema_: dict[str, JsonValue] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Format | None = None


class StreamOptions(BaseModel):
    """What a stream brings besides text."""

    include_usage: bool = False


class Sampling(BaseModel):
    """What both kinds of request say of how tokens are chosen. Fields of OpenAI's that are not used here are passed over."""

    model: Text = Field(description="the chain that answers, or chain:adapter for one of its adapters; /v1/models lists both")
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(1.0, ge=0, le=2, description="0: always the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=1 << 20, description="0: all")
    min_p: float = Field(0.0, ge=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    seed: int | None = Field(None, description="the same answer to the same request, asked alone")
    stop: Text | list[Text] | None = Field(None, description=f"strings, at most {STOPS}, before which the answer ends")
    n: Literal[1] = Field(1, description="answers; ask several times for several")
    response_format: ResponseFormat | None = None
    grammar: Text | None = Field(None, max_length=GRAMMAR, description="GBNF, llama.cpp's grammar, that the answer must follow")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, description="by token id; -100 bans one")
    banned_words: list[Text] | None = Field(
        None,
        max_length=WORDS,
        validation_alias=AliasChoices("banned_words", "bad_words"),
        description="an extension beside OpenAI's fields: texts, letter by letter, that the answer never holds, whatever tokens spell them, inside a "
        f"longer word too; at most {WORDS} of {CHARACTERS} characters together, without grammar or response_format; vLLM's name is bad_words",
    )
    prompt_logprobs: int | None = Field(None, ge=0, le=LIKELIEST, description="log-probabilities of the prompt's tokens, with so many alternatives")

    @property
    def is_free(self) -> bool:
        """Whether nothing but the model by itself, a temperature of 1 at most and the length decides what is written, as the gate foretold it."""
        shaped = self.grammar or self.logit_bias or self.banned_words or (self.response_format and self.response_format.type != "text")
        cut = self.temperature > 1 or (self.temperature and (self.top_p < 1 or self.top_k or self.min_p))
        return (
            not shaped and not cut and not self.adapter and not self.presence_penalty and not self.frequency_penalty and self.repetition_penalty == 1
        )

    @property
    def chain(self) -> str:
        """The chain that is asked."""
        return self.model.partition(BESIDE)[0]

    @property
    def adapter(self) -> str:
        """The adapter that is asked for; empty for the model alone."""
        return self.model.partition(BESIDE)[2]

    def stops(self) -> list[str]:
        """The stop strings. Raises ``ApiError`` for too many or an empty one."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(found) > STOPS or not all(found):
            raise ApiError(HTTPStatus.BAD_REQUEST, f"stop holds {len(found)} strings: send at most {STOPS}, none of them empty", "stop")
        return found

    def sampling(self, vocabulary: int) -> dict[str, Any]:
        """llama.cpp's fields for all but the length. Raises ``ApiError`` naming the field that is none."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repeat_penalty": self.repetition_penalty,
            "seed": -1 if self.seed is None else self.seed % SEED,
            "stop": self.stops(),
            "logit_bias": self._biases(vocabulary),
            "return_tokens": True,
            **self._constraint(),
        }

    def _biases(self, vocabulary: int) -> list[tuple[int, float | bool]]:
        found: list[tuple[int, float | bool]] = []
        for name, bias in (self.logit_bias or {}).items():
            if not (name.isascii() and name.isdecimal()) or int(name) >= vocabulary:
                said = f"logit_bias names {name[:20]}, which is no token: they are 0 to {vocabulary - 1}"
                raise ApiError(HTTPStatus.BAD_REQUEST, said, "logit_bias")
            found.append((int(name), False if bias == -100 else bias))
        return found

    def _constraint(self) -> dict[str, Any]:
        asked = self.response_format
        if self.banned_words:
            return {"grammar": self._without_banned(self.banned_words)}
        if self.grammar is not None and asked and asked.type != "text":
            raise ApiError(HTTPStatus.BAD_REQUEST, "grammar and response_format both say what the answer must be: send one", "grammar")
        if self.grammar is not None:
            return {"grammar": self.grammar}
        if asked is None or asked.type == "text":
            return {}
        if asked.type == "json_object":
            return {"json_schema": {"type": "object"}}
        if asked.json_schema is None:
            raise ApiError(HTTPStatus.BAD_REQUEST, "response_format is json_schema without json_schema.schema: send one", "response_format")
        schema = asked.json_schema.schema_
        if _depth(schema) > DEPTH or len(json.dumps(schema)) > GRAMMAR:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"the schema is deeper than {DEPTH} or longer than {GRAMMAR} characters", "response_format")
        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            said = f"{error.json_path} of the schema: {error.message[:200]}; it is no JSON schema"
            raise ApiError(HTTPStatus.BAD_REQUEST, said, "response_format") from error
        return {"json_schema": schema}

    def _without_banned(self, words: Sequence[str]) -> str:
        if self.grammar is not None or (self.response_format and self.response_format.type != "text"):
            said = "banned_words are a grammar of their own, and an answer follows one: send them without grammar and response_format"
            raise ApiError(HTTPStatus.BAD_REQUEST, said, "banned_words")
        if not all(words) or (length := sum(map(len, words))) > CHARACTERS:
            said = "an empty one" if not all(words) else f"{length} characters"
            raise ApiError(HTTPStatus.BAD_REQUEST, f"banned_words hold {said}: send at most {CHARACTERS} in words of one or more", "banned_words")
        if length * len({word[0] for word in words}) > TRANSITIONS:
            said = f"{length} characters in words with {len({word[0] for word in words})} different beginnings, which makes too long a grammar"
            raise ApiError(HTTPStatus.BAD_REQUEST, f"banned_words hold {said}: send fewer or shorter ones", "banned_words")
        return grammar_without(tuple(words))


def _depth(value: Any) -> int:
    """Levels of a JSON value, without recursion; counting ends above the limit."""
    level, depth = [value], 0
    while level and depth <= DEPTH:
        depth += 1
        level = [inner for outer in level if isinstance(outer, Mapping | list) for inner in (outer.values() if isinstance(outer, Mapping) else outer)]
    return depth


class TextPart(BaseModel):
    """A part of a turn; text alone is read here."""

    type: Literal["text"]
    text: Text


class Turn(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def message(self) -> dict[str, str]:
        """The turn as chat templates read it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatRequest(Sampling):
    """OpenAI's chat completion request."""

    messages: list[Turn] = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(None, ge=1, description="default: as many as the context has room for")
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=LIKELIEST)
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="no model here calls tools")

    def length(self) -> int | None:
        """Tokens that are asked for at most."""
        return self.max_completion_tokens or self.max_tokens

    def alternatives(self) -> int | None:
        """Alternatives a token, None where no log-probabilities are asked for."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(Sampling):
    """OpenAI's older completion request."""

    prompt: Text | list[int] = Field(description="a text, or token ids")
    max_tokens: int = Field(16, ge=0, description="0 with `echo`: the prompt is scored and nothing generated")
    logprobs: int | None = Field(None, ge=0, le=LIKELIEST)
    echo: bool = Field(False, description="whether the answer begins with the prompt")

    def length(self) -> int | None:
        """Tokens that are asked for at most."""
        return self.max_tokens

    def alternatives(self) -> int | None:
        """Alternatives a token, None where no log-probabilities are asked for."""
        return self.logprobs


class Tokens(BaseModel):
    """Tokens read and written by the model."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Said(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """The one answer."""

    index: int
    message: Said
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """OpenAI's chat completion plus ``release``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Tokens
    release: str
    prompt_logprobs: list[dict[str, Any] | None] | None


class CompletionChoice(BaseModel):
    """The one answer."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]
    prompt_logprobs: list[dict[str, Any] | None] | None


class TextCompletion(BaseModel):
    """OpenAI's completion plus ``release``."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Tokens
    release: str
