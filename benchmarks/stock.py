"""transformers' own Trainer as its example scripts use it: what the training worker is compared with.

``python -m benchmarks.stock SETTINGS.json`` trains in one process over all cores and prints the tokens a second, padding left out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet
import torch
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from llm_assets.training.batches import read_layout
from llm_assets.training.decoders import DecoderShape, new_decoder
from llm_assets.training.job import ModelShape
from llm_assets.training.models import modernbert_config

WARMUP = 5  # updates that are not timed


class Clock(TrainerCallback):
    """The tokens of the timed updates and how long they took."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.began = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after the warm-up."""
        if state.global_step == WARMUP:
            self.began, self.tokens = time.perf_counter(), []


class Counted:
    """A collator that counts what is no padding."""

    def __init__(self, collate: Any, clock: Clock) -> None:
        self.collate, self.clock = collate, clock

    def __call__(self, items: Any) -> Any:
        """The batch of the collator."""
        batch = self.collate(items)
        self.clock.tokens.append(int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel())
        return batch


def main(path: Path) -> None:
    """Train as the settings say."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(settings["tokenizer"])
    clock, data, collate = Clock(), Any, Any
    if settings["objective"] == "masked":
        layout = read_layout(Path(settings["data"]))
        blocks = numpy.fromfile(Path(settings["data"]) / "tokens.bin", dtype=layout["dtype"]).reshape(layout["blocks"], layout["context"])
        data = [{"input_ids": block.tolist()} for block in blocks]
        collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
        model: Any = ModernBertForMaskedLM(_encoder(settings, tokenizer))
    elif settings["objective"] == "causal":
        layout = read_layout(Path(settings["data"]))
        blocks = numpy.fromfile(Path(settings["data"]) / "tokens.bin", dtype=layout["dtype"]).reshape(layout["blocks"], layout["context"])
        ones = [1] * layout["context"]
        data = [{"input_ids": block.tolist(), "attention_mask": ones, "labels": block.tolist()} for block in blocks[: layout["train_blocks"]]]
        collate = default_data_collator
        model = new_decoder(DecoderShape(**settings["shape"]), tokenizer, len(tokenizer), layout["context"])
    else:
        table = pyarrow.parquet.read_table(settings["data"]).to_pydict()
        labels = sorted(set(table["label"]))
        ids = tokenizer(table["text"], truncation=True, max_length=128)["input_ids"]
        data = [{"input_ids": tokens, "labels": labels.index(label)} for tokens, label in zip(ids, table["label"], strict=True)]
        collate = DataCollatorWithPadding(tokenizer)
        model = ModernBertForSequenceClassification(_encoder(settings, tokenizer))
    arguments = TrainingArguments(
        output_dir=settings["scratch"], max_steps=settings["steps"], per_device_train_batch_size=settings["batch"], learning_rate=1e-3,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=settings["steps"],
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=Counted(collate, clock), callbacks=[clock])
    trainer.train()
    seconds = time.perf_counter() - clock.began
    made = settings["steps"] - WARMUP  # the collator may have run ahead by a batch
    print(json.dumps({"tokens_per_second": sum(clock.tokens[:made]) / seconds, "threads": torch.get_num_threads()}))


def _encoder(settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> ModernBertConfig:
    config = modernbert_config(ModelShape(**settings["shape"]), tokenizer, len(tokenizer), 128)
    config.sparse_prediction = settings["sparse_prediction"]
    return config


if __name__ == "__main__":
    main(Path(sys.argv[1]))
