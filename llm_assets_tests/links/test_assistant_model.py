"""The assistant's link: one real training with an adapter, then its checks and refusals."""

from __future__ import annotations

import functools
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_assets.compression.gguf import write_gguf
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation.assistant import Assistant
from llm_assets.evaluation.greedy import partings
from llm_assets.links import aligned_model, task_adapters
from llm_assets.links.aligned_model import AlignedModelConfig
from llm_assets.links.assistant_model import LINK, AssistantModelConfig
from llm_assets.links.assistant_scores import BM25, FINETUNED, PRETRAINED
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.making import Outcome, make
from llm_assets.links.task_adapters import TaskAdaptersConfig
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets.training.adapters import FOLDER, Adapter, unmerged
from llm_assets.training.chat import TemplateError
from llm_assets.training.decoders import DecoderError
from llm_assets_tests.links.trained import COMPUTE, artifact, changed, launch_quietly, root
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, said, table, tokenizer_folder

TASKS = [
    {"name": "translation", "sources": ["pairs"], "measure": "translation", "instruction": "Translate: {ask}"},
    {"name": "titles", "sources": ["news"], "measure": "title", "instruction": "Title? {ask}"},
]
EXAMPLES = ConversationsConfig.model_validate({"sources": ["shop", "pairs", "news"], "tasks": TASKS}).recipe()
CONFIG = AssistantModelConfig.model_validate({
    "max_length": LONGEST, "adapter": {"kind": "lora"}, "epochs": 2, "evaluations_per_epoch": 1, "micro_batch": 2, "learning_rate": 2e-2,
    "processes": 2, "asked": {"ranked": 12, "answered": 3, "answer_tokens": 8},
})  # fmt: skip


@functools.cache
def inputs() -> dict[str, Artifact]:
    folders = {name: root() / "talking" / name for name in ("labelled_examples", "evaluation_sets")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    texts = dialogues(340)
    table(folders["labelled_examples"] / "train.parquet", texts[:300])
    documents = [(text, "shop") for text in texts[300:]] + [("open file\n打开文件", "pairs"), ("save\n保存", "pairs"), ("nobody answers", "shop")]
    documents += [("Profits rose. They fell.\nProfits rise", "news"), ("Rain. Much of it.\nRain comes", "news"), ("一\n二", "elsewhere")]

    def split(number: int) -> str:
        """Dialogues of both lengths in each, and of the others every second one."""
        return ("validation", "test")[(number // 2 if number < 40 else number) % 2]

    rows = [
        {"doc_id": doc_id(text), "text": text, "label": source, "domain": None, "cluster": doc_id(text), "split": split(number)}
        for number, (text, source) in enumerate(documents)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folders["evaluation_sets"] / "evaluation.parquet")
    made = {name: artifact(folder, name, config=EXAMPLES if name == "labelled_examples" else {}) for name, folder in folders.items()}
    return made | {
        "tokenizer": artifact(tokenizer_folder(), "tokenizer"),
        "pretrained_checkpoint": artifact(checkpoint(), "pretrained_checkpoint"),
    }


@functools.cache
def assistant() -> Outcome:
    """One launch."""
    given = {**inputs(), "compute": COMPUTE}
    return make(Store(root() / "data"), LINK, CONFIG, given, seed=1, launch=launch_quietly)


def judged(made: Artifact, check: str) -> Verdict:
    return next(one for one in LINK.checks if one.name == check).judge(made, inputs())


def test_an_assistant_is_trained_scored_and_kept_whole() -> None:
    outcome = assistant()
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    made, models = outcome.artifact, outcome.artifact.metrics["models"]
    assert models[FINETUNED]["test"]["bits_per_byte"] < models[PRETRAINED]["test"]["bits_per_byte"] - 1
    assert models[FINETUNED]["test"]["ranked"] == 12 and models[FINETUNED]["test"]["first_of_10"] > 0.2 > models[BM25]["test"]["chance"]
    assert 0 <= models[BM25]["validation"]["reciprocal_rank"] <= 1
    assert models["copy"]["test"]["translations"] == models["lead_sentence"]["test"]["titles"] == 1
    assert models["lead_sentence"]["test"]["rouge1"] == pytest.approx(0.5, abs=0.01)  # `Profits rose.` for `Profits rise`
    assert {"chrf", "bleu", "rougel"} <= set(models[FINETUNED]["test"])
    metrics = made.metrics
    assert metrics["evaluation_documents_of_other_sources"] == metrics["evaluation_documents_without_answer"] == 1
    assert metrics["padding_share"] < 0.35 and 0.1 < metrics["answer_share"] < 0.6 and metrics["trained_parameters"] < metrics["parameters"]
    scored = Assistant(made.directory, made.directory, LONGEST)
    validation = pyarrow.parquet.read_table(made.path("predictions.parquet")).to_pylist()
    rows = [row for row in validation if row["model"] == FINETUNED and row["split"] == "validation" and row["nats"] is not None]
    assert metrics["best"]["loss"] == pytest.approx(sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows), abs=1e-3)
    prompts = [text.split("\n")[0] for text in dialogues(100)]
    assert said(scored.model, prompts) == said(unmerged(checkpoint(), made.directory / FOLDER), prompts)


def test_the_folder_is_what_transformers_and_the_gateway_read() -> None:
    folder = assistant().artifact.directory
    mine, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = mine.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert text == "[CLS]<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert model.generation_config.eos_token_id == [mine.convert_tokens_to_ids("<|im_end|>"), mine.convert_tokens_to_ids("[SEP]")]
    assert (folder / FOLDER / "adapter_model.safetensors").exists() and not (folder / "adapter_config.json").exists()
    assert str(root()) not in (folder / FOLDER / "adapter_config.json").read_text()


def test_checks_fail(tmp_path: Path) -> None:
    made = assistant().artifact
    assert not judged(changed(made, config={"required_gain": 9.0}), "beats_baseline").passed
    rows = pyarrow.parquet.read_table(made.path("predictions.parquet")).to_pylist()

    def scored(rows: list[dict[str, Any]]) -> bool:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, made.table("predictions.parquet").schema), folder / "predictions.parquet")
        return judged(changed(made, directory=folder), "every_document_scored").passed

    assert scored(rows) and not scored(rows[1:]) and not scored([rows[0], *rows])
    assert not scored([{**rows[0], "nats": float("nan")}, *rows[1:]])


def test_a_chain_without_virtual_tokens_has_the_recipe_that_it_had() -> None:
    assert set(CONFIG.recipe()["adapter"]) == {"kind", "rank", "alpha", "dropout"}
    for kind in ("prompt", "prefix"):
        assert AssistantModelConfig.model_validate({"adapter": {"kind": kind, "tokens": 4}}).recipe()["adapter"]["tokens"] == 4


@pytest.mark.parametrize("kind", ["adalora", "prompt", "prefix"])
def test_adapters_that_look_at_whole_weights_are_refused_where_zero_cuts_them(kind: str) -> None:
    with pytest.raises(ValidationError, match=rf"adapter.kind {kind} looks at whole weights, which zero_stage 3 cuts: set it to 0, 1 or 2"):
        AssistantModelConfig.model_validate({"adapter": {"kind": kind}, "zero_stage": 3})


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_prompt_longer_than_half_of_a_conversation_is_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match=r"adapter.tokens \(40\) .* at most half of max_length \(64\)"):
        AssistantModelConfig.model_validate({"adapter": {"kind": kind, "tokens": 40}, "max_length": 64})


@pytest.mark.slow
def test_a_tuned_prefix_is_trained_and_scored_and_what_stands_on_the_weights_refuses_it(tmp_path: Path) -> None:
    """By two processes, layers computed again; what was learnt from packed blocks is what PEFT's cache gives each conversation."""
    changes = {"adapter": Adapter(kind="prefix", tokens=4), "learning_rate": 0.1, "activation_checkpointing": True}
    outcome = make(Store(tmp_path / "data"), LINK, CONFIG.model_copy(update=changes), {**inputs(), "compute": COMPUTE}, seed=1, launch=launch_quietly)
    made, models = outcome.artifact, outcome.artifact.metrics["models"]
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    assert models[FINETUNED]["test"]["bits_per_byte"] < models[PRETRAINED]["test"]["bits_per_byte"] - 0.5
    assert made.metrics["trained_parameters"] == 4 * 2 * 2 * 16
    rows = pyarrow.parquet.read_table(made.path("predictions.parquet")).to_pylist()
    mine = [row for row in rows if row["model"] == FINETUNED and row["split"] == "validation" and row["nats"] is not None]
    assert made.metrics["best"]["loss"] == pytest.approx(sum(row["nats"] for row in mine) / sum(row["tokens"] for row in mine), abs=1e-3)
    aligned = AlignedModelConfig.model_validate({"method": "dpo", "sources": ["shop"]})
    adapters = TaskAdaptersConfig.model_validate({"adapters": {"colours": {"tasks": ["conversation"]}}})
    given = {**inputs(), "raw_corpus": made, "finetuned_model": made, "compute": COMPUTE}
    for link, config in ((aligned_model.LINK, aligned), (task_adapters.LINK, adapters)):
        mine = {name: given[name] for name in link.inputs if name in given}
        with pytest.raises(ValueError, match=r"finetuned_model: a tuned prefix .* its chain ends at finetuned_model"):
            make(Store(tmp_path / "home"), link, config, mine, seed=1, launch=lambda *_: pytest.fail("launched"))


def test_answers_that_leave_no_room_for_what_is_asked_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"asked.answer_tokens \(60\) leave no room .* max_length \(64\): lower them"):
        AssistantModelConfig.model_validate({"adapter": {"kind": "prompt", "tokens": 4}, "max_length": 64, "asked": {"answer_tokens": 60}})


@pytest.mark.slow
def test_a_tuned_prompt_goes_the_whole_way_to_gguf(tmp_path: Path) -> None:
    """Trained by two processes, merged as tokens of the template, rounded, and asked through llama.cpp: what PEFT's vectors say."""
    config = CONFIG.model_copy(update={"adapter": Adapter(kind="prompt", tokens=4), "learning_rate": 0.1})
    given = {**inputs(), "compute": COMPUTE}
    outcome = make(Store(tmp_path / "data"), LINK, config, given, seed=1, launch=launch_quietly)
    made, folder = outcome.artifact, outcome.artifact.directory
    assert made.metrics["models"][FINETUNED]["test"]["bits_per_byte"] < made.metrics["models"][PRETRAINED]["test"]["bits_per_byte"]
    assert made.metrics["trained_parameters"] == 4 * 32
    mine = AutoTokenizer.from_pretrained(folder)
    prompts = [text.split("\n")[0] for text in dialogues(20)]
    apart = unmerged(checkpoint(), folder / FOLDER)
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    asked = [mine.apply_chat_template(one, add_generation_prompt=True, return_dict=True)["input_ids"] for one in turns]
    write_gguf(folder, tmp_path / "served" / "model-f16.gguf", "f16")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(folder / name, tmp_path / "served" / name)
    settings = {"task": "generation", "model": "model-f16.gguf", "context": LONGEST, "normaliser": NORMALISER_VERSION}
    (tmp_path / "served" / "serving.json").write_text(json.dumps(settings))
    with closing(Generator(tmp_path / "served", slots=1)) as engine:
        assert [engine.chat(one) for one in turns] == asked
        assert [parting for parting in partings(folder, engine, asked, 12) if not parting.is_tie] == []
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    short = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": mine.convert_tokens_to_ids(["<|im_end|>", "[SEP]"])}
    for ids in asked:
        whole, bare = torch.tensor([ids]), torch.tensor([ids[4:]])
        ours = merged.generate(whole, attention_mask=torch.ones_like(whole), **short)[0, len(ids) :].tolist()
        assert ours == apart.generate(input_ids=bare, attention_mask=torch.ones_like(bare), **short)[0, len(ids) - 4 :].tolist()


def test_what_does_not_match_is_refused_before_training(tmp_path: Path) -> None:
    def refused(**config: Any) -> Any:
        folder = Path(shutil.copytree(checkpoint(), tmp_path / str(len(list(tmp_path.iterdir())))))
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**known, **config}))
        given = {**inputs(), "pretrained_checkpoint": artifact(folder, "pretrained_checkpoint"), "compute": COMPUTE}
        return make(Store(tmp_path / "home"), LINK, CONFIG, given, seed=1, launch=lambda *_: pytest.fail("launched"))

    with pytest.raises(TemplateError, match="pretrained_checkpoint knows 20 tokens"):
        refused(vocab_size=20)
    with pytest.raises(DecoderError, match="is a mamba, and conversations are learnt by decoders of these shapes: llama"):
        refused(model_type="mamba")
    elsewhere = changed(inputs()["labelled_examples"], config={"sources": ["poems"], "tasks": []})
    with pytest.raises(ValueError, match="no validation document of evaluation_sets is a conversation of poems"):
        make(Store(tmp_path / "home"), LINK, CONFIG, {**inputs(), "labelled_examples": elsewhere, "compute": COMPUTE}, seed=1, launch=launch_quietly)
