"""A decoder in llama.cpp beside transformers, and through the gateway beside llama.cpp's own server."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.result import Result

ROUNDS, PROMPT, TOKENS = 3, 32, 128  # rounds by turns, the median of which counts; tokens read and written
STREAMS, STREAMED = 8, 512
FORMATS = ("f16", "q8_0", "q4_0")
FASTER = {"q8_0": 6.0, "q4_0": 9.0}  # targets: times the tokens a second of transformers, and the share of llama.cpp's own server
SHARE = 0.95
CONTEXT = 1024


def decoding(preset: str, home: Path) -> Result:
    """Tokens a second of a 27M-parameter Llama of random weights (speed does not depend on them), all by turns in one run.

    One stream: transformers `generate` in float32 against llama.cpp on F16, Q8_0 and Q4_0, 32 tokens read and 128 written. Eight
    streams on Q8_0: the gateway, which writes its request log, against llama.cpp's own server on the same file with the same
    settings; both are processes, asked by the same client. Whether their greedy text is that of transformers `greedy` says.
    """
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folders = write_random(Path(temporary))
        generated = {kind: _engine_asked(stack, folders[kind]) for kind in FORMATS}
        rates = _by_turns({"transformers": _transformers(folders["float"]), **generated})
        for name, rate in rates.items():
            print(f"one stream     {name:<24}{rate:>8.0f} tokens/s   {rate / rates['transformers']:.1f}x")
        stack.pop_all().close()
        with _own_server(folders["q8_0"]) as own, _gateway(folders["q8_0"], Path(temporary) / "home") as gateway:
            streams = _by_turns({"llama.cpp's own server": own, "gateway": gateway})
        share = streams["gateway"] / streams["llama.cpp's own server"]
        for name, rate in streams.items():
            print(f"{STREAMS} streams      {name:<24}{rate:>8.0f} tokens/s")
    faster = {kind: rates[kind] / rates["transformers"] for kind in FASTER}
    holds = all(faster[kind] >= times for kind, times in FASTER.items()) and share >= SHARE
    said = ", ".join(f"{kind} >= {times:g}x" for kind, times in FASTER.items())
    print(f"gateway: {100 * share:.1f}% of llama.cpp's own server")
    target = f"{said} of transformers (value: q8_0); gateway >= {100 * SHARE:g}% of llama.cpp's server"
    return Result("decoding", round(faster["q8_0"], 2), "x", target, holds)


def write_random(scratch: Path) -> dict[str, Path]:
    """By name the folder in Hugging Face's form, and one to serve of each format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llm_assets.compression.gguf import write_gguf
    from llm_assets.corpus.normalise import NORMALISER_VERSION
    from llm_assets.corpus.vocabulary import Vocabulary, train

    folder = scratch / "float"
    folder.mkdir()
    source = random.Random(0)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(9000)]
    tokenizer = train(Vocabulary(kind="byte_bpe", vocabulary=8192), [" ".join(source.choices(words, k=200)) for _ in range(200)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]"}))
    config = LlamaConfig(
        vocab_size=16384, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=6,
        max_position_embeddings=CONTEXT, initializer_range=0.1, tie_word_embeddings=False,
        bos_token_id=tokenizer.token_to_id("[CLS]"), eos_token_id=tokenizer.token_to_id("[SEP]"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}M parameters")
    model.save_pretrained(folder)
    folders = {"float": folder}
    for kind in FORMATS:
        folders[kind] = scratch / kind
        folders[kind].mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(folder / name, folders[kind] / name)
        write_gguf(folder, folders[kind] / f"model-{kind}.gguf", kind)
        settings = {"task": "generation", "model": f"model-{kind}.gguf", "context": CONTEXT, "normaliser": NORMALISER_VERSION}
        (folders[kind] / "serving.json").write_text(json.dumps(settings))
    return folders


def _by_turns(measured: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median rate of each, after a round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(ROUNDS + 1):
        for name, measure in measured.items():
            rate = measure()
            if number:
                found[name].append(rate)
    return {name: statistics.median(rates) for name, rates in found.items()}


def prompt_of(number: int) -> list[int]:
    """A prompt of random tokens, the same for the same number."""
    return random.Random(number).choices(range(400, 8000), k=PROMPT)


def _transformers(folder: Path) -> Callable[[], float]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt_of(0)])
    settings = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}

    def measure() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        return TOKENS / (time.perf_counter() - began)

    return measure


def _engine_asked(stack: ExitStack, folder: Path) -> Callable[[], float]:
    from llm_assets.serving.generation import Generator

    engine = stack.enter_context(closing(Generator(folder, slots=1)))
    asked = {"prompt": prompt_of(0), "n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}

    def measure() -> float:
        began = time.perf_counter()
        answer = asyncio.run(engine.llama.ask("/completion", asked))
        return float(answer["tokens_predicted"] / (time.perf_counter() - began))

    return measure


@contextmanager
def _own_server(folder: Path) -> Iterator[Callable[[], float]]:
    """llama.cpp's server as it comes in the wheel, with the gateway's settings and, as its child has them, the shortest turns on a core."""
    from llm_assets.serving.generation import SLOTS
    from llm_assets.store.priority import answer_promptly

    command = [sys.executable, "-m", "llm_assets.serving.llama_server", str(folder / "model-q8_0.gguf"), str(CONTEXT), str(SLOTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=answer_promptly) as process:
        assert process.stdin and process.stdout
        process.stdin.write("key\n")
        process.stdin.flush()
        url = process.stdout.readline().strip()
        whole = {"top_k": 0, "top_p": 1, "min_p": 0}  # as the gateway asks: the server's own top_p of .95 sorts the vocabulary for each token
        yield lambda: _streams(f"{url}/v1/completions", {"ignore_eos": True, **whole})
        process.stdin.close()


@contextmanager
def _gateway(folder: Path, home: Path) -> Iterator[Callable[[], float]]:
    from llm_assets.serving.state import gateway_state, write_desired
    from llm_assets.store.files import sha256_file

    directory = home / "artifacts" / "quantized_model" / "q8_0"
    shutil.copytree(folder, directory)
    files = {path.name: sha256_file(path) for path in directory.iterdir()}
    write_desired(home, "talk", {"release": "talk-1", "quantized_model": "q8_0", "directory": "artifacts/quantized_model/q8_0", "files": files})
    process = subprocess.Popen([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(home)], stderr=subprocess.DEVNULL)
    try:
        while not ((state := gateway_state(home)) and (state["chains"].get("talk") or {}).get("live")):
            if process.poll() is not None:
                raise RuntimeError(f"the gateway ended with {process.returncode}")
            time.sleep(0.1)
        bans = {str(token): -100 for token in _ends(folder)}
        yield lambda: _streams(f"{state['url']}/v1/completions", {"logit_bias": bans})
    finally:
        process.terminate()
        process.wait(30)


def _ends(folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.token_to_id(token) for token in ("[SEP]", "<|im_end|>")]


def _streams(url: str, more: Mapping[str, Any]) -> float:
    """Tokens a second of all streams together, read as they come to their ends. Raises ``RuntimeError`` where one is not whole."""
    address, failed = urlsplit(url), list[str]()
    settings = {"model": "talk", "max_tokens": STREAMED, "temperature": 0, "stream": True, **more}

    def read(number: int) -> None:
        connection = http.client.HTTPConnection(address.netloc, timeout=300)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
        connection.request("POST", address.path, json.dumps({**settings, "prompt": prompt_of(number)}), headers)
        response, last = connection.getresponse(), b""
        for line in response:
            last = line if line.startswith(b"data: ") else last
        if last != b"data: [DONE]\n":
            failed.append(f"{response.status} {last[:200]!r}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(STREAMS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{url}: {failed[0]}")
    return STREAMS * STREAMED / (time.perf_counter() - began)
