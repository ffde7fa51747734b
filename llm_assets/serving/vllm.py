"""The engine of a decoder on a GPU host: `vllm serve` in an environment of its own, asked in vLLM's words and answering in llama.cpp's.

What the tests hold is the protocol, against a stand-in that speaks vLLM's OpenAI API (0.33) as a vLLM on a GPU did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from llm_assets.environments.environment import VLLM, MissingEnvironmentError
from llm_assets.serving.engine import EngineError
from llm_assets.serving.generation import Generator, Likely
from llm_assets.serving.llama import LlamaError, RefusedError, Supervised, end
from llm_assets.serving.loopback import open_url
from llm_assets.serving.ports import bind
from llm_assets.store import guard

NAME = "model"  # what vLLM calls it; nobody but the gateway asks
SLOTS = 64  # answers that are generated side by side
STARTING = 900.0  # seconds until it answers: weights are read and graphs captured
INTERVAL = 0.2  # seconds between two looks
BANNED = -100.0  # what vLLM and OpenAI take for never
# One engine has one backend of grammars, else that which the first request needs, and other requests are refused from then on; and white
# space without a limit is what a small model ends in.
STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class Vllm(Supervised):
    """vLLM's server over a folder of compressed-tensors, its processes under a guard, so that none outlives the gateway."""

    grace = guard.GRACE + 5

    def __init__(self, python: Path, model: Path, context: int, slots: int) -> None:
        settings = {
            "host": "127.0.0.1",
            "served-model-name": NAME,
            "max-model-len": context,
            "max-num-seqs": slots,
            "structured-outputs-config": json.dumps(STRUCTURED),
        }
        served = [str(python), "-I", "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
        self._command = [sys.executable, guard.__file__, *served, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
        super().__init__(model)

    def _start(self) -> subprocess.Popen[str]:
        with bind("127.0.0.1", 0, "vLLM", "") as free:
            port: int = free.getsockname()[1]
        environment = {**os.environ, **QUIET, "VLLM_API_KEY": self._key}  # not among the arguments, which every user of the machine sees
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen([*self._command, "--port", str(port)], stdin=subprocess.PIPE, text=True, env=environment)
        deadline = time.monotonic() + STARTING
        while not (_is_well(port) and _owns(process.pid, port)):
            if process.poll() is not None or self._closed.is_set() or time.monotonic() > deadline:
                end(process, self.grace)
                raise LlamaError(f"{self._model} does not load in vLLM (status {process.returncode}); its own words stand in the gateway's output")
            time.sleep(INTERVAL)
        self._address = "127.0.0.1", port
        return process


class VllmGenerator(Generator):
    """A decoder that vLLM generates with; texts become tokens, and tokens prompts, as with llama.cpp."""

    def __init__(self, directory: Path, slots: int = SLOTS) -> None:
        super().__init__(directory, slots)

    def _process(self, directory: Path, settings: Mapping[str, Any]) -> Supervised:
        if "vllm" not in settings:
            raise EngineError(f"{directory} holds no compressed-tensors, which vLLM serves: set quantized_model.compressed_tensors.schemes")
        folder = directory / settings["vllm"]
        self._suppressed = suppressed(folder)
        self.adapters = []  # a release's are GGUF, which vLLM does not read
        context, self.context = self.context, self.context - 1  # vLLM reads no text without room for a token after it; answers are read again
        try:
            return Vllm(VLLM.python(), folder, context, self.slots)
        except MissingEnvironmentError as error:
            raise EngineError(str(error)) from error

    async def generate(
        self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str = "", admitted: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """What follows a prompt; sampling and events are llama.cpp's. Closing this frees the slot. Raises ``RefusedError`` and ``LlamaError``."""
        self.busy += 1
        admitted()  # at once: nobody takes turns here
        asked = {"model": NAME, "prompt": list(prompt), **in_vllms_words(sampling, self._suppressed)}
        tokens = 0
        try:
            async with aclosing(self.llama.stream("/v1/completions", asked)) as source:
                async for chunks in source:
                    events = []
                    for chunk in chunks:
                        for choice in _choices(chunk):
                            tokens += len(choice.get("token_ids") or ())
                            events.append(self._event(choice, tokens))
                    if events:
                        yield events
        finally:
            self.busy -= 1

    async def likelihood(self, ids: Sequence[int], top: int = 0, since: int = 1, adapter: str = "") -> list[Likely]:
        """How likely each token from place ``since`` on is after those before it, with the ``top`` likeliest."""
        asked = {"model": NAME, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
        found = await self.llama.ask("/v1/completions", asked)
        scored = zip(ids[since:], found["choices"][0]["prompt_logprobs"][since:], strict=True)
        return [_likely(token, entries, top) for token, entries in scored]

    def _event(self, choice: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """A piece in llama.cpp's words."""
        finish = choice.get("finish_reason")
        if finish not in (None, "stop", "length"):
            raise LlamaError(f"the process that generates broke off ({finish})")
        reason = "limit" if finish == "length" else "word" if isinstance(choice.get("stop_reason"), str) else "eos"
        event = {"content": choice["text"], "tokens": choice.get("token_ids") or [], "tokens_predicted": tokens, "stop": finish is not None}
        scored = [self._scored(*one) for one in _scores(choice.get("logprobs"))]
        return {**event, **({"stop_type": reason} if finish else {}), **({"completion_probabilities": scored} if scored else {})}

    def _scored(self, token: int, logprob: float, top: Mapping[int, float]) -> dict[str, Any]:
        ranked = sorted(top.items(), key=lambda pair: -pair[1])
        return {**self._named(token, logprob), "top_logprobs": [self._named(*one) for one in ranked]}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        return {"id": token, "logprob": logprob, "bytes": list(self.piece(token).encode())}


def in_vllms_words(sampling: Mapping[str, Any], suppressed: Sequence[int] = ()) -> dict[str, Any]:
    """llama.cpp's fields of a request as vLLM's; those left out stay at vLLM's defaults."""
    same = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "stop", "ignore_eos")
    found = {name: sampling[name] for name in same if name in sampling}
    other = {"n_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
    found |= {theirs: sampling[mine] for mine, theirs in other.items() if mine in sampling}
    if sampling.get("seed", -1) >= 0:
        found["seed"] = sampling["seed"]
    biases = {str(token): BANNED if bias is False else float(bias) for token, bias in sampling.get("logit_bias", ())}
    if biases or suppressed:
        found["logit_bias"] = biases | {str(token): BANNED for token in suppressed}
    if sampling.get("n_probs"):
        found["logprobs"] = sampling["n_probs"]
    if "json_schema" in sampling:
        found["structured_outputs"] = {"json": sampling["json_schema"]}
    if "grammar" in sampling:
        found["structured_outputs"] = {"grammar": sampling["grammar"]}
    return {**found, "return_token_ids": True, "return_tokens_as_token_ids": True}


def suppressed(folder: Path) -> list[int]:
    """The tokens that are no answer's by ``generation_config.json``, which vLLM reads but for these."""
    path = folder / "generation_config.json"
    found: list[int] = json.loads(path.read_text(encoding="utf-8")).get("suppress_tokens") if path.is_file() else []
    return found or []


def _choices(chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a chunk brings. An error comes as one too, in mid-stream, and of a request that is refused only once it is read closely."""
    if error := chunk.get("error"):
        if error["code"] < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RefusedError(error["message"])
        raise LlamaError(f"the process that generates broke off ({error['message']})")
    found: list[dict[str, Any]] = chunk["choices"]
    return found


def _scores(logprobs: Mapping[str, Any] | None) -> Iterator[tuple[int, float, dict[int, float]]]:
    """Each token with its log-probability and those of the likeliest, by id; vLLM writes them as ``token_id:7``."""
    if not logprobs:
        return
    for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        yield _id(token), logprob, {_id(name): value for name, value in (top or {}).items()}


def _id(token: str) -> int:
    return int(token.rpartition(":")[2])


def _likely(token: int, entries: Mapping[str, Mapping[str, Any]], top: int) -> Likely:
    own = entries[str(token)]
    ranked = sorted(((entry["rank"], int(name), entry["logprob"]) for name, entry in entries.items()), key=lambda entry: entry[0])
    return Likely(token, own["logprob"], own["rank"], [(name, logprob) for rank, name, logprob in ranked if rank <= top])


def _owns(guardian: int, port: int) -> bool:
    """Whether a process below ``guardian`` listens on ``port``: it was free when it was chosen, and another one may have taken it since."""
    for process in psutil.Process(guardian).children(recursive=True):
        with suppress(psutil.Error):  # it has ended since
            if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in process.net_connections("tcp")):
                return True
    return False


def _is_well(port: int) -> bool:
    try:
        with open_url(f"http://127.0.0.1:{port}/health", 2) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError):
        return False
