"""A trained classifier as an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

from llm_assets.training.encoders import longest_text

OPSET = 18
UNBOUNDED = 1 << 20  # tokens that the graph of a model without positions takes


def export_classifier(directory: Path, target: Path, notes: Mapping[str, str] = {}) -> None:
    """Write the sequence classifier of a folder as ``target`` (float32 ONNX), with ``notes`` as the graph's own metadata.

    Inputs ``input_ids`` and ``attention_mask`` are int64 [batch, length], both dynamic; the output ``logits`` is float32
    [batch, labels]. The graph's answers equal torch's to 1e-5.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    import llm_assets.training.architectures  # noqa: F401  # makes its classes known to the Auto classes

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
    settings = {"local_files_only": True, "use_safetensors": True}
    model = AutoModelForSequenceClassification.from_pretrained(directory, **settings).eval()
    ids = torch.ones(2, 16, dtype=torch.int64)
    longest = longest_text(model.config) or UNBOUNDED
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=longest)
    shapes = {0: batch, 1: length}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # notes for the exporter's developers
        torch.onnx.export(
            model,
            (),
            target,
            kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": shapes, "attention_mask": shapes},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _annotate(target, notes)


def _annotate(path: Path, notes: Mapping[str, str]) -> None:
    """Put ``notes`` in place of what the exporter notes on each node: source lines and paths of its machine, 0.4 MB of them."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.helper.set_model_props(model, dict(notes))
    onnx.save(model, path)
