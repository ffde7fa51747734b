"""A served decoder of random weights: a few hundred kilobytes of GGUF, made with transformers and run by llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from llm_assets.compression.gguf import write_gguf
from llm_assets.compression.gguf_adapter import write_adapter
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.serving.releases import release_journal
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import Desired, proven, write_desired
from llm_assets_tests.compression.decoders import write_decoder, write_lora
from llm_assets_tests.serving.tiny import committed, record

CONTEXT = 128  # tokens that are served
LONG = 20_000  # that the model was made for: an answer of so many takes many seconds
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@cache
def decoder(seed: int) -> Path:
    """A folder in Hugging Face's form with its ``model-f16.gguf``; the same one for the same seed."""
    folder = write_decoder(Path(mkdtemp()), seed=seed, max_position_embeddings=LONG)
    write_gguf(folder, folder / "model-f16.gguf", "f16")
    return folder


@cache
def lora(seed: int) -> Path:
    """PEFT's folder of an adapter beside ``decoder(0)``, with its ``adapter.gguf``; another one for another seed."""
    folder = write_lora(decoder(0), Path(mkdtemp()), seed, spread=0.3)
    write_adapter(decoder(0), folder, folder / "adapter.gguf")
    return folder


def write_model(directory: Path, seed: int = 0, adapters: Mapping[str, int] = {}, **settings: Any) -> Path:
    """The files of a served decoder; ``adapters`` are seeds of ``lora`` by name."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, "model-f16.gguf"):
        shutil.copyfile(decoder(seed) / name, directory / name)
    if folder := settings.get("vllm"):
        (directory / folder).mkdir(parents=True)
        for name in (*FILES, "config.json", "generation_config.json"):
            shutil.copyfile(decoder(seed) / name, directory / folder / name)
    for name, number in adapters.items():
        shutil.copyfile(lora(number) / "adapter.gguf", directory / f"adapter-{name}.gguf")
    if adapters:
        settings["adapters"] = {name: f"adapter-{name}.gguf" for name in adapters}
    said = {"task": "generation", "model": "model-f16.gguf", "context": CONTEXT, "normaliser": NORMALISER_VERSION, **settings}
    (directory / "serving.json").write_text(json.dumps(said))
    return directory


def release(home: Path, number: int, seed: int = 0, chain: str = "talk", **settings: Any) -> dict[str, Any]:
    """Make release ``<chain>-<number>`` and write it into the release journal; returns its record."""
    artifact = committed(write_model(home / "artifacts" / "quantized_model" / f"{chain}{number}", seed, **settings))
    made = {**record(home, artifact, number, chain), "state": "champion"}
    release_journal(home, chain).append({"trial": False, "data_version": made["release"], "verdicts": [], "record": made})
    return made


def deploy(home: Path, number: int, seed: int = 0, chain: str = "talk", **settings: Any) -> None:
    """Make release ``<chain>-<number>`` and ask for it."""
    write_desired(home, chain, release(home, number, seed, chain, **settings))


def roll_out(home: Path, number: int, plan: Plan, seed: int = 0, chain: str = "talk") -> Desired:
    """Release ``<chain>-<number>`` and ask for it beside what serves now."""
    return write_desired(home, chain, release(home, number, seed, chain), proven(home, chain), plan)
