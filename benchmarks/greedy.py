"""Greedy answers of llama.cpp beside transformers' over the same weights: of the chain's trained decoder, and of random weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.decoding import prompt_of, write_random
from benchmarks.result import Result

PROMPTS, ANSWER = 100, 32  # and tokens of an answer


def greedy(preset: str, home: Path) -> Result:
    """Greedy answers of 32 tokens to 100 prompts, llama.cpp against transformers in float32 over the same weights; give it with --home.

    The decoder of the newest quantized_model of `assistant` in --home, asked the first lines of 100 test documents; and one of random
    weights (27M parameters), asked random tokens, whose distributions are nearly flat: the worst case. Both twice. Where nothing is rounded
    (float32 matrices, keys and values, no flash attention) every answer must be transformers' to the last token. As it is served, at
    F16, llama.cpp also rounds to F16 what enters each product, the keys and values, and the sums of flash attention. The bound of a tie
    is the furthest that the first of these alone, done in transformers, moves the gap of the two likeliest tokens at any token of its
    answers: where the gap is smaller, that rounding may turn it around.
    """
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "trained").mkdir()
        exact, parted, ties = _compared("trained", *_trained(home, Path(temporary) / "trained"))
        (Path(temporary) / "random").mkdir()
        random_exact, _, _ = _compared("random weights", *_random(Path(temporary) / "random"))
    target = f"{PROMPTS} of {PROMPTS} with nothing rounded, trained and random; at F16, trained, equal or parted at a tie (value: equal at F16)"
    return Result("greedy", PROMPTS - parted, "answers", target, exact == random_exact == 0 and parted == ties)


def _compared(name: str, folder: Path, served: Path, prompts: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """How many answers differ with nothing rounded and at F16, and how many of these part at a tie; says of each that does where and why."""
    from llm_assets.compression.gguf import write_gguf
    from llm_assets.evaluation.greedy import Unrounded, partings
    from llm_assets.serving.generation import Generator

    unrounded = served / "model-f32.gguf"
    write_gguf(folder, unrounded, "f32")
    with closing(Generator(served, slots=1)) as engine:
        exact = partings(folder, Unrounded(unrounded, engine.context), prompts, ANSWER, rounded=False)
        found = partings(folder, engine, prompts, ANSWER)
    bound = _furthest(folder, prompts)
    print(f"{name:<16}nothing rounded: {PROMPTS - len(exact)} of {PROMPTS} equal; F16: {PROMPTS - len(found)} equal; bound of a tie {bound:.4f} nats")
    for one in found:
        said = "a tie" if one.nats <= bound else "no tie"
        print(f"{'':<16}prompt {one.prompt:>3} parts at token {one.position:>2}, {one.nats:.5f} nats between the two: {said}")
    return len(exact), len(found), sum(one.nats <= bound for one in found)


def _trained(home: Path, scratch: Path) -> tuple[Path, Path, list[list[int]]]:
    """The trained decoder's folder, one to serve it at F16 from, and prompts."""
    from llm_assets.compression.gguf import write_gguf
    from llm_assets.links.gguf_model import evaluation_texts
    from llm_assets.serving.generation import Generator
    from llm_assets.store.store import Store

    store = Store(home)
    decoders = [one for one in store.manifests("quantized_model") if one.recipe.get("variant") == "generation"]
    rounded = max(decoders, key=lambda one: one.started, default=None)
    if rounded is None:
        raise SystemExit(f"{home} holds no decoder: `LLM_ASSETS_HOME={home} llm-assets run assistant`, then give it with --home")
    name = "aligned_model" if "aligned_model" in rounded.inputs else "finetuned_model"
    model, held_out = (store.open(link, rounded.inputs[link].fingerprint) for link in (name, "evaluation_sets"))
    made = store.open("quantized_model", rounded.fingerprint).directory
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(made / file, scratch / file)
    settings: dict[str, Any] = json.loads((made / "serving.json").read_text(encoding="utf-8"))
    (scratch / "serving.json").write_text(json.dumps({**settings, "model": "model-f16.gguf", "adapters": {}}))
    write_gguf(model.directory, scratch / "model-f16.gguf", "f16")
    with closing(Generator(scratch, slots=1)) as engine:
        lines = [text.split("\n", 1)[0] for _, text in evaluation_texts(held_out, "test", PROMPTS)]
        prompts = [engine.chat([{"role": "user", "content": line}])[: engine.context - ANSWER] for line in lines]
    return model.directory, scratch, prompts


def _random(scratch: Path) -> tuple[Path, Path, list[list[int]]]:
    folders = write_random(scratch)
    return folders["float"], folders["f16"], [prompt_of(number) for number in range(PROMPTS)]


def _furthest(folder: Path, prompts: Sequence[Sequence[int]]) -> float:
    """The furthest in nats that rounding to F16 what enters each product moves the gap of the two likeliest tokens of greedy answers."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).float().eval()
    furthest = 0.0
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER, do_sample=False)
            exact = model(said).logits[0, len(prompt) - 1 : -1]
            hooks = [part.register_forward_pre_hook(_to_half) for part in model.modules() if isinstance(part, torch.nn.Linear)]
            rounded = model(said).logits[0, len(prompt) - 1 : -1]
        for hook in hooks:
            hook.remove()
        best = exact.topk(2).indices
        furthest = max(furthest, float((rounded - exact).gather(1, best).diff(dim=1).abs().max()))
    return furthest


def _to_half(part: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What enters a layer, each number the nearest that float16 has."""
    return (inputs[0].half().float(), *inputs[1:])
