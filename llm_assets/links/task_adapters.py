"""The link task_adapters, which a chain that generates may have: named adapters beside the model that is served, each for some tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from llm_assets.evaluation.predictions import SPLITS
from llm_assets.links import plots
from llm_assets.links.assistant_scores import Asked
from llm_assets.links.conversations import PLAIN, ConversationsConfig
from llm_assets.links.link import Bench, Check, Link, Made
from llm_assets.links.training import TeachingSection, draw_loss, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.strict import Strict
from llm_assets.store.verdict import Verdict
from llm_assets.training.adapters import FOLDER, Adapter, refuse_prefixed
from llm_assets.training.job import Conversation, TrainingJob

if TYPE_CHECKING:
    from llm_assets.training.chat import Chat

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
WITH, ALONE = "with it", "(alone)"  # the model beside an adapter, and without; no adapter has such a name
SERVED = ("lora", "rslora")  # kinds that llama.cpp adds to a model that it runs
WEIGHTS = "adapter_model.safetensors"


class TaskAdapter(Strict):
    """One adapter."""

    tasks: list[str] = Field(min_length=1, description="of labelled_examples, those that it is trained on; `conversation` are sources without one")
    adapter: Adapter = Field(Adapter(kind="lora"), description="kind lora or rslora, with its rank, alpha and dropout")

    @field_validator("adapter")
    @classmethod
    def _can_be_served(cls, adapter: Adapter) -> Adapter:
        if adapter.kind not in SERVED:
            raise ValueError(f"kind is {adapter.kind}: llama.cpp adds {' and '.join(SERVED)} to a model that it runs, and no other kind")
        return adapter


class TaskAdaptersConfig(TeachingSection):
    """Which adapters there are, and how all of them are trained."""

    adapters: dict[Name, TaskAdapter] = Field(min_length=1, description="by name: `translation` answers as `<chain>:translation`")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    required_gain: float = Field(
        0.0, ge=-10, description="bits a byte by which each must find its validation answers likelier than the model alone does"
    )


def task_adapters(
    bench: Bench,
    config: TaskAdaptersConfig,
    finetuned_model: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    compute: Mapping[str, Any],
    aligned_model: Artifact | None = None,
) -> Made:
    """Trains adapters beside the frozen weights of the model that is served, each on the conversations of its own tasks.

    The training is that of the finetuned model, from that model on (with preferences: from the aligned one), and adds nothing to its
    weights: each adapter is kept in PEFT's form, in `<name>/adapter/`. How likely the model finds the evaluation answers of those tasks
    is measured alone and with the adapter; the check looks at validation alone. The rounded model carries the adapters, and the gateway
    answers with the one that a request names, over one copy of the weights.
    """
    from transformers import PreTrainedTokenizerFast

    from llm_assets.evaluation.assistant import Assistant
    from llm_assets.training.chat import Chat

    refuse_prefixed(finetuned_model.directory, "finetuned_model")
    model = finetuned_model if aligned_model is None else aligned_model
    longest = int(finetuned_model.manifest.recipe["config"]["max_length"])
    chat = Chat(PreTrainedTokenizerFast.from_pretrained(model.directory, local_files_only=True))
    examples = ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"])
    asked = Asked.read(evaluation_sets, examples)
    _refuse_unknown(config, examples)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for name, one in config.adapters.items():
        mine = replace(bench, directory=bench.directory / name, scratch=bench.scratch / name)
        for folder in (mine.directory, mine.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        places = [place for place, task in enumerate(asked.tasks) if (task.name if task else PLAIN) in one.tasks]
        job = _job(mine, config, one, chat, longest, model.directory, labelled_examples, asked, places)
        figures[name] = train(mine, job, config.processes, compute)
        draw_loss(mine, f"Loss of the adapter {name}", "nats a token")
        folders: dict[str, Path | None] = {ALONE: None, name: mine.directory / FOLDER}
        for beside, adapter in folders.items():
            assistant = Assistant(model.directory, model.directory, longest, adapter)
            found = assistant.likelihoods([asked.messages[place] for place in places], progress=bench.progress)
            rows += [
                {"adapter": name, "model": beside, "split": asked.splits[place], "doc_id": asked.doc_ids[place], **likely._asdict()}
                for place, likely in zip(places, found, strict=True)
            ]
    _write(bench.directory / "predictions.parquet", rows)
    models = {name: {split: _bits(rows, name, split) for split in SPLITS} for name in config.adapters}
    bars = {f"{name}, {beside}": splits["test"][beside] for name, splits in models.items() for beside in (WITH, ALONE)}
    plots.bars(bench.directory, "bits_per_byte", bars, "Test answers of each adapter's tasks", "bits per byte")
    return Made({"adapters": models, "training": figures})


def _refuse_unknown(config: TaskAdaptersConfig, examples: ConversationsConfig) -> None:
    """Raise ``ValueError`` for an adapter of a task that no conversation has."""
    known = sorted({task.name if (task := examples.task_of(source)) else PLAIN for source in examples.sources})
    for name, one in config.adapters.items():
        if unknown := [task for task in one.tasks if task not in known]:
            raise ValueError(f"task_adapters.adapters.{name}.tasks: labelled_examples have no task {unknown[0]}; there are: {', '.join(known)}")


def _job(
    bench: Bench,
    config: TaskAdaptersConfig,
    one: TaskAdapter,
    chat: Chat,
    longest: int,
    start_from: Path,
    labelled_examples: Artifact,
    asked: Asked,
    places: Sequence[int],
) -> TrainingJob:
    """The job that trains one adapter beside the decoder of ``start_from``. Raises ``ValueError`` where a split of its tasks is empty."""
    from llm_assets.training.conversation import pack, read_conversations

    validation = [place for place in places if asked.splits[place] == SPLITS[0]]
    examples = bench.scratch / "train.parquet"
    count = _write(examples, [row for row in labelled_examples.table("train.parquet", ["messages", "task"]).to_pylist() if row["task"] in one.tasks])
    held_out = {split: sum(asked.splits[place] == split for place in places) for split in SPLITS}
    if not count or not all(held_out.values()):
        raise ValueError(f"task_adapters: {', '.join(one.tasks)} have {count} conversations to train on and {held_out} held out: none may be empty")
    _write(bench.scratch / "evaluation.parquet", [{"messages": asked.messages[place]} for place in validation])
    blocks = len(pack([len(each.ids) for each in read_conversations(examples, chat, longest)], longest, bench.seed))
    return TrainingJob(
        objective=Conversation(train=examples, evaluation=bench.scratch / "evaluation.parquet", max_length=longest, adapter=one.adapter),
        tokenizer=start_from,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=start_from,
        **config.updates(blocks),
        seed=bench.seed,
        **config.optimization(),
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    import pyarrow
    import pyarrow.parquet

    if rows:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    return len(rows)


def _bits(rows: Sequence[Mapping[str, Any]], name: str, split: str) -> dict[str, float]:
    """Bits per byte of the answers of an adapter's tasks, with it and without."""
    found = {}
    for beside, model in ((WITH, name), (ALONE, ALONE)):
        mine = [row for row in rows if (row["adapter"], row["model"], row["split"]) == (name, model, split)]
        found[beside] = round(sum(row["nats"] for row in mine) / math.log(2) / max(1, sum(row["bytes"] for row in mine)), 5)
    return {**found, "documents": len(mine)}


def adapter_folders(task_adapters: Artifact) -> dict[str, Path]:
    """PEFT's folder of each adapter, by name in the order of the YAML."""
    return {name: task_adapters.directory / name / FOLDER for name in task_adapters.manifest.recipe["config"]["adapters"]}


def _beats_model(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    """Against the model alone, on the validation split: nothing was chosen by looking at the test split."""
    margin = artifact.manifest.recipe["config"]["required_gain"]
    rows = artifact.table("predictions.parquet").to_pylist()
    found = {name: _bits(rows, name, SPLITS[0]) for name in adapter_folders(artifact)}
    worse = [name for name, bits in found.items() if not bits[WITH] < bits[ALONE] - margin]
    said = "; ".join(f"{name}: {bits[WITH]:.3f} bits per byte, {bits[ALONE]:.3f} without" for name, bits in found.items())
    return Verdict(
        check="beats_model", passed=not worse, description=f"{said}; more than {margin:.2f} below it are asked for", values={"worse": worse}
    )


def _weights_finite(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import torch
    from safetensors.torch import load_file

    bad = [
        f"{name}: {key}"
        for name, folder in adapter_folders(artifact).items()
        for key, tensor in load_file(folder / WEIGHTS).items()
        if not torch.isfinite(tensor).all()
    ]
    found = f"not finite: {', '.join(bad[:10])}" if bad else "every weight is a finite number"
    return Verdict(check="weights_finite", passed=not bad, description=found)


LINK = Link(
    name="task_adapters",
    version=1,
    make=task_adapters,
    config=TaskAdaptersConfig,
    inputs=("finetuned_model", "aligned_model", "labelled_examples", "evaluation_sets", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface"),
    checks=(
        Check("beats_model", "With each adapter its tasks' validation answers are likelier than without, by the stated margin.", _beats_model),
        Check("weights_finite", "Every weight is a finite number.", _weights_finite),
    ),
    trained=True,
    optional=True,
    libraries=("deepspeed", "peft", "torch", "transformers"),
)
