"""The finetuned model as it was saved, in torch on the CPU: the reference that faster engines are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llm_assets.store.progress import Progress, silent

BATCH = 64


class TorchClassifier:
    """A sequence-classification folder of transformers, with ``serving.json`` beside it."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
        from transformers.utils.logging import disable_progress_bar

        import llm_assets.training.architectures  # noqa: F401  # makes its classes known to the Auto classes

        disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
        settings = json.loads((directory / "serving.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.max_length: int = settings["max_length"]
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True, use_safetensors=True).eval()

    def classify(self, texts: Sequence[str], progress: Progress = silent) -> list[list[float]]:
        """Probabilities [texts, labels]; texts of like length share a batch, so that little is padding."""
        import torch

        ids = [self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"] for text in texts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        found: list[list[float]] = [[] for _ in ids]
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = self.tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            for index, row in zip(chosen, torch.softmax(logits.double(), -1).tolist(), strict=True):
                found[index] = row
            progress(start + len(chosen), len(order), "documents scored")
        return found
