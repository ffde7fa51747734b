"""How long one text takes: the served int8 engine, the float graph in the same runtime, and a transformers pipeline."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.result import Result

CALLS = 300
FASTER = 6.0


def latency(preset: str, home: Path) -> Result:
    """Milliseconds for one review, by turns: int8 as served, the float graph in ONNX Runtime, and transformers' pipeline, of the model in --home.

    Both engines on one core, as the gateway answers; the pipeline with all cores, as it comes. Tokenizing and softmax included.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    from transformers import pipeline

    import llm_assets
    from llm_assets.compression.export import export_classifier
    from llm_assets.evaluation.latency import alternating_latency
    from llm_assets.evaluation.predictions import Examples
    from llm_assets.serving.engine import FILES, OnnxClassifier

    model, quantized, sets = (llm_assets.open("reviews", link) for link in ("finetuned_model", "quantized_model", "evaluation_sets"))
    texts = Examples.read(sets).of("test").texts
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in FILES:
            shutil.copyfile(quantized.path(name), folder / name)
        export_classifier(model.directory, folder / "model.onnx")
        stock = pipeline("text-classification", model=str(model.directory), device="cpu", truncation=True, max_length=128)
        answering = {"int8": OnnxClassifier(quantized.directory).classify, "float": OnnxClassifier(folder).classify, "pipeline": stock}
        found = alternating_latency({name: lambda some, ask=ask: ask(list(some)) for name, ask in answering.items()}, texts, CALLS)
    for name, figures in found.items():
        print(f"{name:<12} p50 {figures['p50_ms']:>8.2f} ms   p99 {figures['p99_ms']:>8.2f} ms")
    int8, single, other = (found[name]["p50_ms"] for name in ("int8", "float", "pipeline"))
    target = f"at least {FASTER:g}, and faster than float ({single / int8:.2f} times)"
    return Result("latency", round(other / int8, 1), "times faster than a transformers pipeline", target, other / int8 >= FASTER and int8 < single)
