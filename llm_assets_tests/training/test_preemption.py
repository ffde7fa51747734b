"""SIGTERM as preemption, for everything the worker learns: a checkpoint within the grace, and from it on to the same weights."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from llm_assets.training.job import PREEMPTED, PREEMPTED_EXIT, PROGRESS, SUMMARY, TrainingJob
from llm_assets.training.launch import GRACE, WorkerFailedError
from llm_assets_tests.links import test_heads, trained
from llm_assets_tests.training import talking, test_grpo
from llm_assets_tests.training.room import launch_in_room, room_id

STEPS, AFTER = 8, 3  # updates in all, and those after which the end is asked for
ENCODER = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 48}
DECODER = {**ENCODER, "architecture": "llama", "key_value_heads": 2}
Parts = dict[str, Any]  # of a job


def masked(folder: Path, **settings: Any) -> Parts:
    inputs = trained.corpus()
    return {
        "objective": {"kind": "masked", "tokens": inputs["tokens"].directory, **settings},
        "tokenizer": inputs["tokenizer"].directory,
        "shape": ENCODER,
    }


def causal(folder: Path) -> Parts:
    inputs = trained.corpus()
    return {"objective": {"kind": "causal", "tokens": inputs["tokens"].directory}, "tokenizer": inputs["tokenizer"].directory, "shape": DECODER}


def span_denoising(folder: Path) -> Parts:
    inputs = trained.denoising_corpus()
    objective = {"kind": "span_denoising", "tokens": inputs["tokens"].directory}
    return {"objective": objective, "tokenizer": inputs["tokenizer"].directory, "shape": {**ENCODER, "architecture": "t5"}}


def answering(folder: Path) -> Parts:
    parts = conversation(folder)
    objective = {name: value for name, value in parts["objective"].items() if name != "adapter"} | {"kind": "answering"}
    return {**parts, "objective": objective, "start_from": talking.reading_checkpoint()}


def conversation(folder: Path, **adapter: Any) -> Parts:
    texts = talking.dialogues(120)
    train, evaluation = talking.table(folder / "train.parquet", texts[:100]), talking.table(folder / "evaluation.parquet", texts[100:])
    objective = {"kind": "conversation", "train": train, "evaluation": evaluation, "max_length": talking.LONGEST, "adapter": adapter}
    return {"objective": objective, "tokenizer": talking.tokenizer_folder(), "start_from": talking.checkpoint()}


def by_rewards(folder: Path) -> Parts:
    parts = test_grpo.job(folder).model_dump(mode="json")
    return {name: parts[name] for name in ("objective", "tokenizer", "start_from")}


def classification(folder: Path, problem: str, labels: list[str], label: Callable[[str], str], **settings: Any) -> Parts:
    """Texts of 30 tokens, labelled by what stands in them; the encoder has random weights unless an architecture is named."""
    texts, found = test_heads.texts(label, length=28)
    table = pyarrow.table({"text": texts, "label": found, "split": ["train"] * 300 + ["validation"] * 100})
    pyarrow.parquet.write_table(table.slice(0, 300), folder / "train.parquet")
    pyarrow.parquet.write_table(table, folder / "evaluation.parquet")
    test_heads.tokenizer(folder / "tokenizer", "[PAD]", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
    test_heads.encoder(folder / "encoder", "modernbert", pad_token_id=0)
    objective = {
        "kind": "classification", "train": folder / "train.parquet", "evaluation": folder / "evaluation.parquet", "problem": problem,
        "labels": labels, "max_length": 32, "dropout": 0.2, **settings,
    }  # fmt: skip
    start = {} if "architecture" in settings else {"start_from": folder / "encoder"}
    return {"objective": objective, "tokenizer": folder / "tokenizer", **start}


def polarity(text: str) -> str:
    return trained.LABELS[any(sign in text for sign in trained.GOOD)]


def kinds(text: str) -> str:
    return "|".join(name for name, signs in (("bad", trained.BAD), ("good", trained.GOOD)) if any(sign in text for sign in signs))


def amount(text: str) -> str:
    return str(sum(text.count(sign) for sign in trained.GOOD) / 12)


LEARNT: dict[str, Callable[[Path], Parts]] = {
    "masked": masked,
    "next_sentence": lambda folder: masked(folder, next_sentence=True),
    "causal": causal,
    "span_denoising": span_denoising,
    "conversation": conversation,
    "answering": answering,
    "adapter": lambda folder: conversation(folder, kind="lora"),
    "by_rewards": by_rewards,
    "single_label": lambda folder: classification(folder, "single_label", trained.LABELS, polarity),
    "multi_label": lambda folder: classification(folder, "multi_label", ["bad", "good"], kinds),
    "regression": lambda folder: classification(folder, "regression", ["value"], amount),
    "windows": lambda folder: classification(folder, "single_label", trained.LABELS, polarity, max_length=16, overlap=4),
    "gru": lambda folder: classification(folder, "single_label", trained.LABELS, polarity, architecture="gru"),
}


def job(parts: Parts, folder: Path) -> Path:
    """The training, in a folder of its own; no checkpoint is due before the end."""
    folder.mkdir()
    settings = {"steps": STEPS, "evaluate_every": 3, "seed": 1, "micro_batch": 8, "learning_rate": 1e-2, "zero_stage": 2}
    return TrainingJob(output=folder / "out", scratch=folder, **parts, **settings).write(folder / "job.json")


def preempted(path: Path) -> float:
    """The job, asked from outside to end; returns the seconds from then until its checkpoint was whole.

    Its progress file is a pipe, at which the worker waits to be read: so it has made ``AFTER`` updates, and not all, when it is asked.
    """
    pipe, asked = path.parent / PROGRESS, []
    os.mkfifo(pipe)

    def ask() -> None:
        lines = 0
        while lines < AFTER:
            lines += pipe.read_text().count("\n")
        asked.append(time.time())
        os.kill(room_id(), signal.SIGTERM)
        asked.append(os.open(pipe, os.O_RDWR))  # from here on it waits no more

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with pytest.raises(WorkerFailedError, match=f"exit code {PREEMPTED_EXIT}"):
        launch_in_room(path, 1, trained.silent)
    asking.join()
    os.close(int(asked[1]))
    pipe.unlink()
    return (path.parent / PREEMPTED).stat().st_mtime - asked[0]


@pytest.mark.parametrize("learnt", LEARNT)
def test_what_is_preempted_saves_within_its_grace_and_ends_with_the_same_weights(tmp_path: Path, learnt: str) -> None:
    parts = LEARNT[learnt](tmp_path)
    whole, broken = (job(parts, tmp_path / name) for name in ("whole", "broken"))
    launch_in_room(whole, 1, trained.silent)
    assert preempted(broken) < GRACE
    stopped = json.loads((broken.parent / PREEMPTED).read_text())["step"]
    assert AFTER <= stopped < STEPS and not (broken.parent / "out").exists()
    launch_in_room(broken, 1, trained.silent)

    once, twice = (json.loads((path.parent / SUMMARY).read_text()) for path in (whole, broken))
    assert once["resumed_from"] == 0 and twice["resumed_from"] == stopped
    assert (once["steps"], once["tokens"], once.get("best")) == (twice["steps"], twice["tokens"], twice.get("best"))
    weights, again = ({file.name: load_file(file) for file in (path.parent / "out").rglob("*.safetensors")} for path in (whole, broken))
    assert weights.keys() == again.keys() and weights
    for name, tensors in weights.items():
        assert tensors.keys() == again[name].keys() and all(torch.equal(tensors[key], again[name][key]) for key in tensors), name
