"""The link task_adapters: an adapter trained by the real worker beside a model, rounded and served with it; its checks and refusals."""

from __future__ import annotations

import asyncio
import functools
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from llm_assets.corpus.conversations import conversation_of
from llm_assets.corpus.documents import doc_id
from llm_assets.links import gguf_model
from llm_assets.links.conversations import PLAIN, ConversationsConfig
from llm_assets.links.making import Outcome, make
from llm_assets.links.task_adapters import ALONE, LINK, WEIGHTS, WITH, TaskAdaptersConfig, adapter_folders
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets.training.adapters import FOLDER
from llm_assets.training.chat import Chat, write_template
from llm_assets_tests.links.trained import COMPUTE, artifact, changed, launch_quietly, root
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, tokenizer, tokenizer_folder

TASKS = [{"name": "translation", "sources": ["pairs"], "measure": "translation", "instruction": "Translate: {ask}"}]
EXAMPLES = ConversationsConfig.model_validate({"sources": ["shop", "pairs"], "tasks": TASKS})
ADAPTERS = ("", "translation")  # the model alone, and with it
WORDS = {"one": "一", "two": "二", "three": "三", "four": "四", "five": "五"}
CONFIG = TaskAdaptersConfig.model_validate({
    "adapters": {"translation": {"tasks": ["translation"], "adapter": {"kind": "rslora", "rank": 4}}},
    "max_steps": 16, "epochs": 9, "evaluations_per_epoch": 1, "micro_batch": 2, "learning_rate": 2e-2, "processes": 1,
})  # fmt: skip


def documents() -> list[tuple[str, str]]:
    """Dialogues of a shop, and words with their translation."""
    pairs = [f"{word} {number}\n{sign}" for number in range(16) for word, sign in WORDS.items()]
    return [(text, "shop") for text in dialogues(80)] + [(text, "pairs") for text in pairs]


@functools.cache
def inputs() -> dict[str, Artifact]:
    folders = {name: root() / "adapters" / name for name in ("labelled_examples", "evaluation_sets", "finetuned_model")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    train, held_out = [], []
    for number, (text, source) in enumerate(documents()):
        if number % 8 < 6:
            task = EXAMPLES.task_of(source)
            turns = [turn._asdict() for turn in conversation_of(text, task) or ()]
            train.append({"doc_id": doc_id(text), "messages": turns, "task": task.name if task else PLAIN, "source": source})
        else:
            held_out.append({"doc_id": doc_id(text), "text": text, "label": source, "split": ("validation", "test")[number % 2]})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(train), folders["labelled_examples"] / "train.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(held_out), folders["evaluation_sets"] / "evaluation.parquet")
    for file in (*checkpoint().iterdir(), *tokenizer_folder().iterdir()):
        (folders["finetuned_model"] / file.name).write_bytes(file.read_bytes())
    write_template(folders["finetuned_model"], Chat(tokenizer()))
    configs: dict[str, dict[str, Any]] = {"labelled_examples": EXAMPLES.recipe(), "finetuned_model": {"max_length": LONGEST}}
    return {name: artifact(folder, name, config=configs.get(name)) for name, folder in folders.items()}


@functools.cache
def adapters() -> Outcome:
    """One launch."""
    return make(Store(root() / "data"), LINK, CONFIG, {**inputs(), "compute": COMPUTE}, seed=1, launch=launch_quietly)


def judged(made: Artifact, check: str) -> Verdict:
    return next(one for one in LINK.checks if one.name == check).judge(made, inputs())


def test_an_adapter_learns_its_own_tasks() -> None:
    outcome = adapters()
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    made = outcome.artifact
    asked = [row["label"] for row in inputs()["evaluation_sets"].table("evaluation.parquet").to_pylist() if row["split"] == "test"]
    test = made.metrics["adapters"]["translation"]["test"]
    assert test[WITH] < test[ALONE] - 0.1 and test["documents"] == asked.count("pairs") < len(asked)
    assert made.metrics["training"]["translation"]["steps"] == 16
    folder = adapter_folders(made)["translation"]
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert not list(made.directory.rglob("model.safetensors")), "the weights beside it are not kept again"
    assert str(root()) not in (folder / "adapter_config.json").read_text()


def test_the_rounded_model_carries_it_and_answers_with_it(tmp_path: Path) -> None:
    config = gguf_model.GgufModelConfig(formats=["q8_0"], compared_prompts=4, evaluation_texts=4, test_texts=4, allowed_rise=0.5)
    given = {name: inputs()[name] for name in ("finetuned_model", "evaluation_sets")} | {"task_adapters": adapters().artifact}
    outcome = make(Store(tmp_path), gguf_model.LINK, config, given, seed=1, launch=launch_quietly)
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    made = outcome.artifact
    assert made.metrics["greedy"]["prompts"] == 8  # alone and with the adapter
    assert made.json("serving.json")["adapters"] == {"translation": "adapter-translation.gguf"}
    with closing(Generator(made.directory, slots=1)) as engine:
        engine.probe("one")
        prompt = engine.chat([{"role": "user", "content": "Translate: two 77"}])
        said = [asyncio.run(engine.complete(prompt, {"temperature": 0, "n_predict": 4, "return_tokens": True}, name))["tokens"] for name in ADAPTERS]
    assert said[0] != said[1]


def test_checks_fail(tmp_path: Path) -> None:
    """Beside the adapter that was trained another one, whose answers are likelier without it, and with a weight that is no number."""
    made, two = adapters().artifact, {"adapters": {"translation": {}, "talk": {}}}
    assert not judged(changed(made, config={"required_gain": 9.0}), "beats_model").passed
    rows = made.table("predictions.parquet").to_pylist()
    turned = [{**row, "adapter": "talk", "model": "talk" if row["model"] == ALONE else ALONE} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows + turned), tmp_path / "predictions.parquet")
    verdict = judged(changed(made, config=two, directory=tmp_path), "beats_model")
    assert not verdict.passed and verdict.values["worse"] == ["talk"]

    weights = load_file(adapter_folders(made)["translation"] / WEIGHTS)
    for name in two["adapters"]:
        if name == "talk":
            next(iter(weights.values()))[0, 0] = float("nan")
        (tmp_path / name / FOLDER).mkdir(parents=True)
        save_file(weights, tmp_path / name / FOLDER / WEIGHTS)
    verdict = judged(changed(made, config=two, directory=tmp_path), "weights_finite")
    assert not verdict.passed and "talk: " in verdict.description and "translation" not in verdict.description


def test_a_task_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    config = TaskAdaptersConfig.model_validate({"adapters": {"one": {"tasks": ["titles"]}}})
    with pytest.raises(ValueError, match=r"adapters\.one\.tasks: labelled_examples have no task titles; there are: conversation, translation"):
        make(Store(tmp_path), LINK, config, {**inputs(), "compute": COMPUTE}, seed=1, launch=launch_quietly)


@pytest.mark.parametrize(
    ("adapters", "reason"),
    [
        ({}, "at least 1"),
        ({"One": {"tasks": ["x"]}}, "pattern"),
        ({"one": {"tasks": []}}, "at least 1"),
        ({"one": {"tasks": ["x"], "adapter": {"kind": "dora"}}}, "kind is dora: llama.cpp adds lora and rslora"),
        ({"one": {"tasks": ["x"], "adapter": {}}}, "kind is none"),
    ],
)
def test_what_cannot_be_served_is_refused_when_the_yaml_is_read(adapters: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TaskAdaptersConfig.model_validate({"adapters": adapters})
