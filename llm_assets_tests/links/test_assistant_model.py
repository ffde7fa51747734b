"""The assistant's link: one real training with an adapter, then its checks and refusals."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_assets.corpus.documents import doc_id
from llm_assets.evaluation.assistant import Assistant
from llm_assets.links.assistant_model import LINK, AssistantModelConfig
from llm_assets.links.assistant_scores import BM25, FINETUNED, PRETRAINED
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.making import Outcome, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets.training.adapters import FOLDER, unmerged
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
