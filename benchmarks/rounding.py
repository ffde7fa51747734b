"""What static ranges cost, by the kinds of nodes that get them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Result

KINDS: tuple[tuple[str, ...], ...] = (
    ("MatMul", "Gemm"),
    ("MatMul", "Gemm", "Gather"),
    ("MatMul", "Gemm", "Gather", "LayerNormalization"),
    ("MatMul", "Gemm", "Gather", "Mul"),
    ("MatMul", "Gemm", "Gather", "Softmax"),
    ("MatMul", "Gemm", "Gather", "Add"),
)
TEXTS = 128  # for calibration
BATCH = 64  # texts scored at once


def rounding(preset: str, home: Path) -> Result:
    """Validation accuracy of int8 by the kinds of nodes with static ranges, beside float and dynamic, of the fine-tuned model in --home."""
    os.environ["LLM_ASSETS_HOME"] = str(home)
    import llm_assets
    from llm_assets.compression.export import export_classifier
    from llm_assets.compression.quantize import STATIC_NODES, quantize_dynamic, quantize_static
    from llm_assets.corpus.normalise import NORMALISER_VERSION
    from llm_assets.evaluation.predictions import Examples
    from llm_assets.links.quantized_model import calibration_texts
    from llm_assets.serving.engine import OnnxClassifier
    from llm_assets.store.files import write_json

    model, examples, sets = (llm_assets.open("reviews", link) for link in ("finetuned_model", "labelled_examples", "evaluation_sets"))
    validation = Examples.read(sets, model.json("serving.json")["labels"]).of("validation")
    print(f"{'nodes with static ranges':<48}{'accuracy':>10}{'MB':>8}   {len(validation.texts)} validation documents, {TEXTS} calibration texts")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copyfile(model.path("tokenizer.json"), folder / "tokenizer.json")
        write_json(folder / "serving.json", {**model.json("serving.json"), "normaliser": NORMALISER_VERSION})
        exported, served = folder / "float.onnx", folder / "model.onnx"
        export_classifier(model.directory, exported)
        shutil.copyfile(exported, served)
        engine = OnnxClassifier(folder, threads=2)
        feeds = [engine.feed(windows) for windows in engine.encode(calibration_texts(examples, TEXTS))]

        def judge(name: str) -> None:
            found[name] = _accuracy(OnnxClassifier(folder, threads=2), validation)
            print(f"{name:<48}{found[name]:>10.4f}{served.stat().st_size / 1e6:>8.2f}", flush=True)

        judge("none: float")
        quantize_dynamic(exported, served)
        judge("none: dynamic")
        for nodes in KINDS:
            quantize_static(exported, served, feeds, nodes=nodes)
            judge(", ".join(nodes))
    lost = found["none: float"] - found[", ".join(STATIC_NODES)]
    return Result("rounding", round(lost, 4), "accuracy lost with the nodes that `static` takes", "<= 0.01", lost <= 0.01)


def _accuracy(engine: Any, examples: Any) -> float:
    pieces = (examples.texts[start : start + BATCH] for start in range(0, len(examples.texts), BATCH))
    rows: Sequence[Sequence[float]] = [row for piece in pieces for row in engine.classify(piece)]
    guesses = [engine.labels[max(range(len(row)), key=row.__getitem__)] for row in rows]
    return sum(guess == label for guess, label in zip(guesses, examples.labels, strict=True)) / len(guesses)
