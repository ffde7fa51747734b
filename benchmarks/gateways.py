"""Gateways that benchmarks start over data roots of their own: releases made of copies of a model, and what a gateway says of itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHAIN = "reviews"
SECONDS = 60.0  # that anything may take to come about


def release(root: Path, number: int, source: Path, turned: bool = False, chain: str = CHAIN) -> dict[str, Any]:
    """A copy of a model as a release in the journal; ``turned`` around it answers the opposite, and loads and probes as well."""
    import onnx

    from llm_assets.serving.engine import FILES
    from llm_assets.serving.releases import release_journal
    from llm_assets.store.files import sha256_file

    folder = root / "artifacts" / "quantized_model" / f"model{number}"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(source / name, folder / name)
    if turned:
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        settings["labels"].reverse()
        (folder / "serving.json").write_text(json.dumps(settings), encoding="utf-8")
        graph = onnx.load(folder / "model.onnx")
        for note in graph.metadata_props:
            note.value = json.dumps(settings["labels"]) if note.key == "labels" else note.value
        onnx.save(graph, folder / "model.onnx")
    record = {
        "release": f"{chain}-{number}",
        "number": number,
        "quantized_model": f"model{number}",
        "directory": str(folder.relative_to(root)),
        "files": {name: sha256_file(folder / name) for name in FILES},
    }
    release_journal(root, chain).append({"trial": False, "verdicts": [], "record": record})
    return record


@contextmanager
def gateway(root: Path, chain: str = CHAIN) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The URL of a gateway that serves a chain, and its process, which is ended with the block."""
    from llm_assets.serving.state import gateway_state

    process = subprocess.Popen([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(root)], stdout=subprocess.DEVNULL)
    try:
        state = until(lambda: (state := gateway_state(root)) and state["chains"].get(chain, {}).get("live") and state)
        yield str(state["url"]), process
    finally:
        process.terminate()
        process.wait()


def chain_of(url: str) -> Mapping[str, Any]:
    """What a gateway says of the chain."""
    with urllib.request.urlopen(f"{url}/readyz", timeout=60) as answer:
        chain: Mapping[str, Any] = json.load(answer)["chains"][CHAIN]
    return chain


def until(condition: Callable[[], T | None], seconds: float = SECONDS, interval: float = 0.02) -> T:
    """The first value of ``condition`` that is true, asked for every ``interval`` seconds. Raises ``TimeoutError`` when none is in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true after {seconds:g} s")
        time.sleep(interval)
    return value
