"""The gateway's ONNX file and tokenizer behind BentoML with its adaptive batching on: what the gateway is compared with.

``MODEL=FOLDER bentoml serve benchmarks/bentoml_service.py:Classifier`` runs it, in an environment of its own
(``bentoml-constraints.txt``), so that it imports nothing of the package.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import bentoml
import numpy
import onnxruntime
from tokenizers import Tokenizer


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Classifier:
    """One worker: two would hold two models and share the same two cores."""

    def __init__(self) -> None:
        folder, options = Path(os.environ["MODEL"]), onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # as the gateway has it
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.labels = settings["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(settings["max_length"])
        self.tokenizer.enable_padding()

    @bentoml.api(batchable=True)
    def classify(self, input: list[str]) -> list[dict[str, object]]:  # named as the key in the body
        """The label of each text and its probabilities."""
        encoded = self.tokenizer.encode_batch(input)
        feed = {"input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded]}
        logits = self.session.run(None, {name: numpy.array(rows, numpy.int64) for name, rows in feed.items()})[0].astype(numpy.float64)
        odds = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = odds / odds.sum(axis=-1, keepdims=True)
        return [{"label": self.labels[int(row.argmax())], "probs": row.tolist()} for row in probabilities]
