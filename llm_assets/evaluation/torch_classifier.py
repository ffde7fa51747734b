"""The finetuned model as it was saved, in torch on the CPU: the reference that faster engines are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llm_assets.store.progress import Progress, silent

BATCH = 64


class TorchClassifier:
    """A sequence-classification folder of transformers, with ``serving.json`` and the tokenizer's files in it or in ``home``.

    Raises ``ValueError`` where the model's labels are not those of ``serving.json`` in the same order.
    """

    def __init__(self, directory: Path, home: Path | None = None) -> None:
        from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
        from transformers.utils.logging import disable_progress_bar

        import llm_assets.training.architectures  # noqa: F401  # makes its classes known to the Auto classes

        disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
        home = home or directory
        settings = json.loads((home / "serving.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.max_length: int = settings["max_length"]
        self.overlap: int | None = settings.get("overlap")
        self.problem = settings.get("problem", "single_label")
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(home, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True, use_safetensors=True).eval()
        refuse_other_labels([self.model.config.id2label[index] for index in range(self.model.config.num_labels)], self.labels)

    def classify(self, texts: Sequence[str], progress: Progress = silent) -> list[list[float]]:
        """Probabilities [texts, labels], the mean over a text's windows; windows of like length share a batch, so that little is padding."""
        import numpy
        import torch

        from llm_assets.training.batches import CollateTexts, encode_texts
        from llm_assets.training.heads import probabilities

        ids, documents = encode_texts(self.tokenizer, texts, self.max_length, self.overlap)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        collate = CollateTexts(self.tokenizer.pad_token_id)
        found = numpy.zeros((len(texts), len(self.labels)))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = collate([{"input_ids": ids[index], "labels": 0} for index in chosen])
            with torch.inference_mode():
                logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            numpy.add.at(found, [documents[index] for index in chosen], probabilities(self.problem, logits.double()).numpy())
            progress(start + len(chosen), len(order), "windows scored")
        return (found / numpy.bincount(documents, minlength=len(texts))[:, None]).tolist()  # type: ignore[no-any-return]


def refuse_other_labels(model: Sequence[str], served: Sequence[str]) -> None:
    """Raise ``ValueError`` where a model's labels are others than those it is served with, or in another order."""
    if list(model) != list(served):
        found, said = ", ".join(model), ", ".join(served)
        raise ValueError(f"the model answers {found} in this order, serving.json says {said}: materialize finetuned_model again")
