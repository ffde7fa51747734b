"""A real classifier of a few hundred bytes, built without torch: it counts kind and unkind words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.serving.releases import release_journal
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import Desired, proven, write_desired
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import MANIFEST, Manifest, describe_files

LABELS = ["negative", "positive"]
WORDS = {"[PAD]": 0.0, "[UNK]": 0.0, "[CLS]": 0.0, "[SEP]": 0.0, "[MASK]": 0.0, "good": 2.0, "bad": -2.0, "喜欢": 2.0, "讨厌": -2.0}
MAX_LENGTH = 16


def write_model(directory: Path, sign: float = 1.0, notes: Mapping[str, str] = {}, words: int = len(WORDS), **settings: Any) -> Path:
    """Write the files of a served model; ``sign`` -1 makes one that answers the opposite, ``notes`` are the graph's own metadata.

    One with fewer ``words`` fails on a text that holds any after them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = _network(sign, words)
    helper.set_model_props(network, dict(notes))
    onnx.save(network, directory / "model.onnx")
    _tokenizer().save(str(directory / "tokenizer.json"))
    settings = {"max_length": MAX_LENGTH, "labels": LABELS, "normaliser": NORMALISER_VERSION, **settings}
    (directory / "serving.json").write_text(json.dumps(settings))
    return directory


def write_artifact(home: Path, fingerprint: str, sign: float = 1.0, **settings: Any) -> Artifact:
    """A committed quantized_model artifact below a data root."""
    directory = home / "artifacts" / "quantized_model" / fingerprint
    shutil.rmtree(directory, ignore_errors=True)
    write_model(directory, sign, **settings)
    return committed(directory)


def committed(directory: Path) -> Artifact:
    """A quantized_model artifact of the files in a folder named by its fingerprint."""
    fingerprint = directory.name
    manifest = Manifest(
        link="quantized_model", fingerprint=fingerprint, data_version=fingerprint, recipe={}, inputs={}, files=describe_files(directory),
        licenses=[], metrics={}, libraries={}, code={}, host="test", started="2026-01-01T00:00:00+00:00",
        seconds=0, core_seconds=0, peak_memory_bytes=0,
    )  # fmt: skip
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return Artifact(directory, manifest)


def record(home: Path, artifact: Artifact, number: int, chain: str = "tiny") -> dict:
    """What the release link would say of an artifact."""
    return {
        "release": f"{chain}-{number}",
        "number": number,
        "quantized_model": artifact.fingerprint,
        "directory": str(artifact.directory.relative_to(home)),
        "files": {name: entry.sha256 for name, entry in artifact.manifest.files.items()},
    }


def deploy(home: Path, number: int, sign: float = 1.0, chain: str = "tiny", **settings: Any) -> Artifact:
    """Make release ``<chain>-<number>`` and ask for it."""
    artifact = write_artifact(home, f"{chain}{number}", sign, **settings)
    write_desired(home, chain, record(home, artifact, number, chain))
    return artifact


def release(home: Path, number: int, sign: float = 1.0, chain: str = "tiny", **settings: Any) -> dict:
    """Make release ``<chain>-<number>`` and write it into the release journal, as the release link does; returns its record."""
    made = {**record(home, write_artifact(home, f"{chain}{number}", sign, **settings), number, chain), "state": "champion"}
    release_journal(home, chain).append({"trial": False, "data_version": made["release"], "verdicts": [], "record": made})
    return made


def roll_out(home: Path, number: int, plan: Plan, sign: float = 1.0, chain: str = "tiny", **settings: Any) -> Desired:
    """Release ``<chain>-<number>`` and ask for it beside what serves now."""
    return write_desired(home, chain, release(home, number, sign, chain, **settings), proven(home, chain), plan)


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens([word for word in WORDS if word.startswith("[")])
    return tokenizer


def _network(sign: float, words: int) -> onnx.ModelProto:
    """logits [batch, 2] = mean over the unmasked tokens of an embedding [words, 2]."""
    kindness = sign * numpy.array(list(WORDS.values()), dtype=numpy.float32)[:words]
    tensors = {"embedding": numpy.stack([-kindness, kindness], axis=1), "last": numpy.array([2]), "tokens": numpy.array([1])}
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask3", "tokens"], ["count"], keepdims=0),
        helper.make_node("Div", ["summed", "count"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
