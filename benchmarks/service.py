"""The gateway beside Flask with a transformers pipeline: requests a second and latency over HTTP, same model, taking turns."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.result import Result
from benchmarks.speed import SHAPE

LENGTH = 45  # characters of a review
TEXTS = 1000
CONNECTIONS = (8, 32)
ROUNDS, SECONDS = 3, 4.0
FASTER, CALMER, LOG = 7.0, 5.0, 0.05  # targets: times the requests a second, times below in p99, and the share that the log may cost
BESIDE = 1.3  # times BentoML's requests a second, where the p99 is not above its
INSTALL = 300.0  # seconds in which BentoML must have been installed
UNLOGGED = """
import sys
from llm_assets.serving import request_log
request_log.RequestLog.write = lambda self, request: None
import llm_assets.serving.__main__
"""

Figures = dict[str, float]


def service(preset: str, home: Path) -> Result:
    """Requests a second at 8 and 32 connections, reviews of 45 characters: the gateway, with and without its log, Flask and BentoML, by turns.

    Of two models: a ModernBERT with 3.3M parameters in its layers, untrained, with the tokenizer of the model in --home (speed does not
    depend on weights), and the model in --home. Each service is a process as it is run in earnest, the load another one; the median of three
    rounds counts. Flask runs under gunicorn with a thread a connection, which beats Flask's own development server, over a transformers
    pipeline as it comes. BentoML serves the gateway's own ONNX file with adaptive batching, one worker and no access log; beside the
    pinned packages pip finds no release of it but 0.5.3 of 2019, so it gets an environment of its own in --home. The floor is an
    ASGI application of 20 lines under the same server over the same batcher and engine, with nothing checked, counted or logged.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.evaluation.predictions import Examples

    model, quantized, sets = (llm_assets.open("reviews", link) for link in ("finetuned_model", "quantized_model", "evaluation_sets"))
    texts = [text[:LENGTH] for text in Examples.read(sets).of("test").texts if len(text) >= LENGTH][:TEXTS]
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        bentoml = _bentoml_environment(home)
        _measure("model of --home", model.directory, quantized.directory, texts, scratch / "own", bentoml)
        return _measure("ModernBERT", *_modernbert(model.directory, scratch), texts, scratch / "modernbert", bentoml)


def _measure(model: str, float_model: Path, int8: Path, texts: Sequence[str], scratch: Path, bentoml: Path | None) -> Result:
    with ExitStack() as stack:
        urls = {
            "Flask": stack.enter_context(_flask(float_model)),
            "gateway": stack.enter_context(_gateway(_data_root(scratch / "logged", int8), ["-m", "llm_assets.serving"])),
            "gateway without log": stack.enter_context(_gateway(_data_root(scratch / "unlogged", int8), ["-c", UNLOGGED])),
            "floor": stack.enter_context(_uvicorn(int8)),
        }
        if bentoml:
            urls["BentoML"] = stack.enter_context(_bentoml(bentoml, int8))
        found: dict[tuple[str, int], list[Figures]] = {(name, count): [] for count in CONNECTIONS for name in urls}
        for _ in range(ROUNDS):
            for name, count in found:
                found[name, count].append(_load(urls[name], count, texts))
    medians = {key: {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]} for key, rounds in found.items()}
    print(f"{model}:")
    return _judged(medians)


def _judged(medians: Mapping[tuple[str, int], Figures]) -> Result:
    for (name, count), figures in medians.items():
        rate, half, most = (figures[key] for key in ("rate", "p50_ms", "p99_ms"))
        print(f"{count:>3} connections  {name:<20}{rate:>8.0f} requests/s   p50 {half:>7.1f} ms   p99 {most:>7.1f} ms")
    faster = [medians["gateway", count]["rate"] / medians["Flask", count]["rate"] for count in CONNECTIONS]
    calmer = [medians["Flask", count]["p99_ms"] / medians["gateway", count]["p99_ms"] for count in CONNECTIONS]
    cost = [1 - medians["gateway", count]["rate"] / medians["gateway without log", count]["rate"] for count in CONNECTIONS]
    for count, *figures in zip(CONNECTIONS, faster, calmer, cost, strict=True):
        floor = medians["floor", count]["rate"] / medians["gateway", count]["rate"]
        print(
            f"{count:>3} connections  {figures[0]:.1f} times Flask's requests, p99 {figures[1]:.1f} times lower, "
            f"the log costs {figures[2]:.1%}, the floor is {floor:.2f} times faster"
        )
    target = f"at least {FASTER:g} at 32 too ({faster[1]:.1f}), p99 {CALMER:g} times lower ({min(calmer):.1f}), log {LOG:.0%} ({max(cost):.1%})"
    holds = min(faster) >= FASTER and min(calmer) >= CALMER and max(cost) <= LOG
    if ("BentoML", CONNECTIONS[0]) in medians:
        beside = [_beside_bentoml(medians, count) for count in CONNECTIONS]
        target += f", {BESIDE:g} times BentoML at its p99 or below ({min(beside):.1f})"
        holds = holds and min(beside) >= BESIDE
    return Result("service", round(faster[0], 1), "times the requests a second of Flask", target, holds)


def _beside_bentoml(medians: Mapping[tuple[str, int], Figures], count: int) -> float:
    """How many times BentoML's requests the gateway answers; 0 where its p99 is the higher one."""
    ours, theirs = medians["gateway", count], medians["BentoML", count]
    faster, calmer = ours["rate"] / theirs["rate"], theirs["p99_ms"] / ours["p99_ms"]
    print(f"{count:>3} connections  {faster:.1f} times BentoML's requests, p99 {calmer:.1f} times lower")
    return faster if ours["p99_ms"] <= theirs["p99_ms"] else 0.0


def _modernbert(like: Path, scratch: Path) -> tuple[Path, Path]:
    """An untrained model with the tokenizer and the labels of another one: the float model's folder, and that of its int8 graph."""
    import torch
    from transformers import AutoTokenizer, ModernBertForSequenceClassification

    from llm_assets.compression.export import export_classifier
    from llm_assets.compression.quantize import quantize_dynamic
    from llm_assets.corpus.normalise import NORMALISER_VERSION
    from llm_assets.training.models import modernbert_config

    float_model, int8 = scratch / "float", scratch / "int8"
    int8.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(like)
    config = modernbert_config(SHAPE, tokenizer, len(tokenizer), 128)
    labels = json.loads((like / "serving.json").read_text())["labels"]
    config.id2label, config.label2id = dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}
    torch.manual_seed(0)
    ModernBertForSequenceClassification(config).save_pretrained(float_model)
    tokenizer.save_pretrained(float_model)
    export_classifier(float_model, scratch / "float.onnx")
    quantize_dynamic(scratch / "float.onnx", int8 / "model.onnx")
    shutil.copyfile(like / "tokenizer.json", int8 / "tokenizer.json")
    settings = {"max_length": 128, "labels": labels, "normaliser": NORMALISER_VERSION}
    (int8 / "serving.json").write_text(json.dumps(settings))
    return float_model, int8


def _data_root(home: Path, quantized: Path) -> Path:
    """A data root whose gateway serves the quantized model."""
    from llm_assets.serving.engine import FILES
    from llm_assets.serving.state import write_desired
    from llm_assets.store.files import sha256_file

    directory = home / "artifacts" / "quantized_model" / quantized.name
    directory.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(quantized / name, directory / name)
    release = {
        "release": "reviews-1",
        "quantized_model": quantized.name,
        "directory": str(directory.relative_to(home)),
        "files": {name: sha256_file(directory / name) for name in FILES},
    }
    write_desired(home, "reviews", release)
    return home


@contextmanager
def _gateway(home: Path, program: Sequence[str]) -> Iterator[str]:
    from llm_assets.serving.state import gateway_state

    with _running([sys.executable, *program, "--port", "0", "--home", str(home)]):
        while not (state := gateway_state(home)):
            time.sleep(0.1)
        _wait(f"{state['url']}/v1/classify")
        yield f"{state['url']}/v1/classify"


@contextmanager
def _uvicorn(int8: Path) -> Iterator[str]:
    address = _free_address()
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.bare:create", "--port", address.split(":")[1], "--log-level", "error"]
    with _running(command, MODEL=str(int8)):
        _wait(f"http://{address}/classify")
        yield f"http://{address}/classify"


def _bentoml_environment(home: Path) -> Path | None:
    """The folder of an environment that holds BentoML, made where there is none; None, and why, where that fails."""
    folder, constraints = home / "benchmarks" / "bentoml", Path(__file__).with_name("bentoml-constraints.txt")
    if (folder / "bin" / "bentoml").exists():
        return folder
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=INSTALL)
        install = [str(folder / "bin" / "pip"), "install", "--quiet", "--constraint", str(constraints), "bentoml", "onnxruntime", "tokenizers"]
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"no row for BentoML, which cannot be installed: {error}")
        return None
    return folder


@contextmanager
def _bentoml(environment: Path, int8: Path) -> Iterator[str]:
    address, program = _free_address(), Path(__file__).with_name("bentoml_service.py")
    command = [str(environment / "bin" / "bentoml"), "serve", f"{program.name}:Classifier", "--host", "127.0.0.1", "--port", address.split(":")[1]]
    settings = {"MODEL": str(int8), "BENTOML_HOME": str(environment / "home"), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": ""}
    with _running(command, program.parent, **settings):
        _wait(f"http://{address}/classify")
        yield f"http://{address}/classify"


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def _flask(model: Path) -> Iterator[str]:
    address = _free_address()
    threads = str(max(CONNECTIONS))
    application = f"benchmarks.flask_service:create({str(model)!r})"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--worker-class",
        "gthread",
        "--threads",
        threads,
        "--bind",
        address,
        "--log-level",
        "error",
        application,
    ]
    with _running(command):
        _wait(f"http://{address}/classify")
        yield f"http://{address}/classify"


@contextmanager
def _running(command: Sequence[str], directory: Path | None = None, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory, env={**os.environ, **environment})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str) -> None:
    """Ask until there is an answer. Raises the last error after two minutes."""
    request = urllib.request.Request(url, _body("好").encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(request, timeout=60).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _load(url: str, connections: int, texts: Sequence[str]) -> Figures:
    command = [sys.executable, "-m", "benchmarks.load", url, str(connections), str(SECONDS)]
    done = subprocess.run(command, input="\n".join(map(_body, texts)), capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    if figures["failed"]:
        raise RuntimeError(f"{figures['failed']} requests failed at {url}")
    return {name: figures[name] for name in ("rate", "p50_ms", "p99_ms", "count")}


def _body(text: str) -> str:
    return json.dumps({"model": "reviews", "input": [text]}, ensure_ascii=False)  # a list, as BentoML's batching asks for
