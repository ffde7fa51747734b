"""NOT vLLM: a stand-in that speaks the part of its OpenAI API that the gateway asks for, since vLLM's wheel runs on GPU hosts alone.

Written after vLLM's documentation (0.33) and held against what vLLM did: fields of `/v1/completions`, chunks of a stream, `token_ids`,
`prompt_logprobs`, errors, of which those that it finds late stand in a stream of status 200, `/health`, the API key from the environment. Fields
that vLLM does not document are refused here, which vLLM itself would pass over. What it says is made up: the next token follows from the last
one by a rule that the tests know. It keeps the bodies it got in ``asked.jsonl``.

Run as vLLM is: ``python -I -m vllm.entrypoints.cli.main serve MODEL --port N ...``, where python is a script that starts this.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

FIELDS = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "seed", "stop", "logit_bias", "logprobs", "prompt_logprobs", "stream", "ignore_eos", "structured_outputs", "return_token_ids",
    "return_tokens_as_token_ids",
}  # fmt: skip
FIRST, KNOWN = 10, 80  # ids that are said, of letters and signs of ASCII
LONG = 1000  # an answer of so many tokens takes its time


def ranked(last: int, banned: Sequence[int] = ()) -> list[tuple[int, float]]:
    """The tokens that may follow, likeliest first: half as likely each as the one before."""
    tokens = [FIRST + (last * 7 + 13 * place) % KNOWN for place in range(24)]
    left = [token for token in dict.fromkeys(tokens) if token not in banned]
    return [(token, -(place + 1) * math.log(2)) for place, token in enumerate(left)]


def said(prompt: Sequence[int], count: int, banned: Sequence[int] = ()) -> list[int]:
    """The greedy answer."""
    found, last = [], prompt[-1]
    for _ in range(count):
        last = ranked(last, banned)[0][0]
        found.append(last)
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokenizer: Tokenizer
    model: str
    context: int
    asked: Path
    dying: Path  # where this is a file, every answer is that of a vLLM whose engine has died and that has not ended yet

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.asked.open("a") as file:
            file.write(json.dumps(body) + "\n")
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._refuse(401, "Unauthorized")
        elif self.path != "/v1/completions" or body["model"] != self.model:
            self._refuse(404, f"The model `{body.get('model')}` does not exist.")
        elif unknown := body.keys() - FIELDS:
            self._refuse(400, f"not documented: {sorted(unknown)}")
        elif min(body["max_tokens"], self.context - len(body["prompt"])) < 1:
            self._refuse(400, "max_tokens must be at least 1, got 0.")
        elif self.dying.exists():
            self._refuse(500, "EngineCore encountered an issue.")
        elif body.get("stream"):
            self._stream(body)
        else:
            scored = [self._entries(one, before, body["prompt_logprobs"]) for before, one in zip(body["prompt"], body["prompt"][1:], strict=False)]
            choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length", "prompt_logprobs": [None, *scored]}
            self._answer(200, {"object": "text_completion", "model": self.model, "choices": [choice]})

    def _entries(self, token: int, before: int, top: int) -> dict[str, Any]:
        order = ranked(before)
        place = next((rank for rank, (name, _) in enumerate(order, 1) if name == token), 99)
        entries = {str(name): {"logprob": logprob, "rank": rank} for rank, (name, logprob) in enumerate(order[:top], 1)}
        return {**entries, str(token): {"logprob": order[place - 1][1] if place < 99 else -30.0, "rank": place}}

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        body["max_tokens"] = min(body["max_tokens"], self.context - len(body["prompt"]))
        banned = [int(token) for token, bias in (body.get("logit_bias") or {}).items() if bias <= -100]
        answer = said(body["prompt"], body["max_tokens"], banned)
        stops = body.get("stop") or []
        held = max(map(len, stops), default=1) - 1  # characters that may be the beginning of a stop string
        ids: list[int] = []
        written, last = "", body["prompt"][-1]
        for number, token in enumerate(answer, 1):
            ids.append(token)
            whole = self.tokenizer.decode(ids, skip_special_tokens=True)
            stop = next((word for word in stops if word in whole), None)
            finish = "stop" if stop else "length" if number == len(answer) else None
            text = (whole[: whole.index(stop)] if stop else whole if finish else whole[: len(whole) - held])[len(written) :]
            written += text
            logprobs = None
            if (count := body.get("logprobs")) is not None:
                top = {f"token_id:{name}": logprob for name, logprob in ranked(last, banned)[:count]}
                logprobs = {"tokens": [f"token_id:{token}"], "token_logprobs": [-math.log(2)], "top_logprobs": [top], "text_offset": [0]}
            last = token
            yield {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish, "stop_reason": stop, "token_ids": [token]}
            if finish:
                return
            if body["max_tokens"] > LONG:
                time.sleep(0.01)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        refused = body.get("structured_outputs", {}).get("grammar") == "root ::= ("
        if refused:
            self._event(json.dumps({"error": {"message": "Invalid grammar specification.", "type": "BadRequestError", "param": None, "code": 400}}))
        for choice in () if refused else self._chunks(body):
            self._event(json.dumps({"object": "text_completion", "model": self.model, "choices": [choice]}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-I", action="store_true", required=True)  # no module of the folder it is started in stands in for vLLM's
    parser.add_argument("-m", dest="module", choices=["vllm.entrypoints.cli.main"], required=True)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    parser.add_argument("--structured-outputs-config", type=json.loads, required=True)
    given = parser.parse_args()
    Handler.tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    Handler.model, Handler.context, Handler.asked = given.served_model_name, given.max_model_len, Path(os.environ["VLLM_STAND_IN_ASKED"])
    Handler.dying = Handler.asked.with_name("dying")
    assert given.structured_outputs_config == {"backend": "xgrammar", "disable_any_whitespace": True}, "told otherwise, vLLM answers otherwise"
    ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
