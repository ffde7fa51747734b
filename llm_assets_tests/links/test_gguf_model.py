"""The smallest GGUF whose bits per byte stay within the allowed rise; each check failing on what it is there for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from llm_assets.compression.gguf import ShapeError, write_gguf
from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.environments.environment import COMPRESSED_TENSORS, MissingEnvironmentError
from llm_assets.links.gguf_model import LINK, GgufModelConfig, evaluation_texts, read_predictions, readings, smallest
from llm_assets.links.making import Outcome, make
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.store import Store
from llm_assets.training.chat import Chat
from llm_assets.training.prompts import VECTORS, WEIGHTS, extend, merge
from llm_assets_tests.compression import llmcompressor_stand_in
from llm_assets_tests.compression.decoders import LINES, write_decoder
from llm_assets_tests.environments.standing import stand_in
from llm_assets_tests.links import trained
from llm_assets_tests.training.talking import LONGEST, SHAPE, checkpoint, tokenizer_folder

CONFIG = GgufModelConfig(formats=["q8_0", "q4_0"], compared_prompts=3, evaluation_texts=3, allowed_rise=0.01)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("inputs")
    write_decoder(folder / "finetuned_model", spread=0.2)
    rows = [{"doc_id": str(number), "text": f"{line}\nfine", "split": "validation"} for number, line in enumerate(LINES)]
    rows.append({"doc_id": "9", "text": f"{LINES[0]}\nwell", "split": "test"})
    (folder / "evaluation_sets").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "evaluation_sets" / "evaluation.parquet")
    return {name: trained.artifact(folder / name, name) for name in ("finetuned_model", "evaluation_sets")}


@pytest.fixture(scope="module")
def made(inputs: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    yield make(Store(tmp_path_factory.mktemp("home")), LINK, CONFIG, inputs, seed=0, launch=trained.launch_quietly)


def test_formats_are_measured_and_the_smallest_within_the_rise_is_served(made: Outcome) -> None:
    artifact, metrics = made.artifact, made.artifact.metrics
    assert all(found.passed for found in made.verdicts), made.verdicts
    assert set(metrics["candidates"]) == {"f16", "q8_0", "q4_0"} and metrics["candidates"]["f16"]["rise"] == 0
    assert metrics["format"] == "q8_0" and metrics["candidates"]["q4_0"]["rise"] > 0.01 > abs(metrics["candidates"]["q8_0"]["rise"])
    assert metrics["greedy"]["prompts"] == 3 and metrics["times_smaller"] > 1.5
    served = {"serving.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model-q8_0.gguf", "model-q4_0.gguf"}
    assert set(artifact.manifest.files) == {*served, "predictions.parquet", "pages/formats.html", "plots/size.png"}
    assert artifact.json("serving.json") == {"task": "generation", "model": "model-q8_0.gguf", "context": 256, "normaliser": NORMALISER_VERSION}
    assert "q8_0 (taken)" in artifact.path("pages/formats.html").read_text()


def test_what_is_served_and_f16_were_read_on_the_test_documents(made: Outcome) -> None:
    rows = {name: read_predictions(made.artifact, name) for name in ("quantized", "f16")}
    assert [row["doc_id"] for found in rows.values() for row in found] == ["9", "9"]
    (served,), (reference,) = rows.values()
    assert served["bytes"] == reference["bytes"] == len(normalise(f"{LINES[0]}\nwell").encode()) and served["tokens"] == reference["tokens"]
    assert served["nats"] != reference["nats"] and abs(served["nats"] / reference["nats"] - 1) < 0.02


def test_texts_are_read_behind_a_tuned_prompt_which_is_not_counted(tmp_path: Path) -> None:
    folder, adapter = extend(tokenizer_folder(), tmp_path / "model", 2), tmp_path / "adapter"
    mine = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    chat = Chat(mine)
    adapter.mkdir()
    save_file({VECTORS: torch.randn(2, SHAPE.hidden, generator=torch.Generator().manual_seed(0))}, adapter / WEIGHTS)
    merge(checkpoint(), adapter, folder, chat)
    write_gguf(folder, folder / "model-f16.gguf", "f16")
    write_json(folder / "serving.json", {"task": "generation", "model": "model-f16.gguf", "context": LONGEST, "normaliser": NORMALISER_VERSION})
    text = "what colour has [SEP] the sky?"  # which is spelt out, as documents are in training
    with closing(Generator(folder, slots=1)) as engine:
        (read,) = readings(engine, [text])
        ids = torch.tensor([[*chat.virtual, chat.opening, *mine(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]]])
    with torch.no_grad():
        scores = AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, 2:-1].log_softmax(-1).gather(1, ids[0, 3:, None])
    assert read.tokens == len(scores) and read.bytes == len(text) and read.nats == pytest.approx(-float(scores.sum()), rel=1e-2)


def test_an_aligned_model_is_rounded_in_place_of_the_finetuned_one(made: Outcome, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "aligned_model", seed=1, spread=0.2)
    config = CONFIG.model_copy(update={"formats": ["q8_0"], "compared_prompts": 1, "evaluation_texts": 1})
    given = {**inputs, "aligned_model": trained.artifact(folder, "aligned_model")}
    other = make(Store(tmp_path / "home"), LINK, config, given, seed=0, launch=trained.launch_quietly).artifact
    plain, aligned = (read_predictions(one, "f16")[0]["nats"] for one in (made.artifact, other))
    assert abs(aligned / plain - 1) > 0.001 and other.manifest.inputs["aligned_model"].fingerprint == "aligned_model"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment `compressed-tensors` whose interpreter starts the stand-in."""
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    stand_in(COMPRESSED_TENSORS, llmcompressor_stand_in.__file__)


def test_compressed_tensors_are_kept_beside_gguf_and_held_to_the_same_rise(inputs: dict[str, Artifact], environment: None, tmp_path: Path) -> None:
    config = GgufModelConfig(
        formats=["q8_0"], compared_prompts=1, evaluation_texts=2, allowed_rise=0.02,
        compressed_tensors={"schemes": ["w4a16", "w8a8"], "calibration_conversations": 3},
    )  # fmt: skip
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    (tmp_path / "labelled_examples").mkdir()
    rows = [{"doc_id": str(number), "messages": messages} for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labelled_examples" / "train.parquet")
    given = {**inputs, "labelled_examples": trained.artifact(tmp_path / "labelled_examples", "labelled_examples")}
    outcome = make(Store(tmp_path / "home"), LINK, config, given, seed=0, launch=trained.launch_quietly)
    made, metrics = outcome.artifact, outcome.artifact.metrics["compressed_tensors"]
    assert all(found.passed for found in outcome.verdicts), outcome.verdicts
    for scheme in ("w4a16", "w8a8"):
        files = {f"compressed-tensors/{scheme}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")}
        assert files <= set(made.manifest.files)
        assert metrics[scheme]["rise"] == pytest.approx(0.01) and metrics[scheme]["bits_per_byte"] > 0
    assert made.json("serving.json")["vllm"] == "compressed-tensors/w4a16"
    assert made.manifest.inputs["labelled_examples"].fingerprint == "labelled_examples"
    assert not LINK.checks[0].judge(trained.changed(made, config={"allowed_rise": 0.005}), {}).passed


def test_without_their_environment_nothing_is_begun(inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    config = GgufModelConfig(compressed_tensors={"schemes": ["w8a8"]})
    with pytest.raises(MissingEnvironmentError, match="Remedy: llm-assets env compressed-tensors"):
        make(Store(tmp_path / "home"), LINK, config, inputs, seed=0, launch=trained.launch_quietly)


def test_a_chain_without_them_has_the_recipe_that_it_had() -> None:
    config = GgufModelConfig(formats=["q8_0"])
    assert set(config.recipe()) == {"formats", "allowed_rise", "evaluation_texts", "test_texts", "compared_prompts", "context"}
    assert config.unread() == ("labelled_examples",)


def test_what_it_makes_is_served(made: Outcome) -> None:
    engine = Generator(made.artifact.directory, slots=1)
    try:
        engine.probe("one")
    finally:
        engine.close()


def test_a_rise_above_the_allowed_one_is_refused(made: Outcome) -> None:
    check = LINK.checks[0]
    assert check.name == "rise_within" and check.blocking
    worse = trained.changed(made.artifact, metrics={"format": "q4_0"})
    assert not check.judge(worse, {}).passed and check.judge(trained.changed(worse, config={"allowed_rise": 9.0}), {}).passed


def test_answers_other_than_transformers_are_refused_but_for_ties(made: Outcome) -> None:
    check = LINK.checks[1]
    assert check.name == "greedy_as_transformers" and check.blocking
    assert not check.judge(trained.changed(made.artifact, metrics={"greedy": {"prompts": 3, "equal": 1, "ties": 1}}), {}).passed
    assert check.judge(trained.changed(made.artifact, metrics={"greedy": {"prompts": 3, "equal": 2, "ties": 1}}), {}).passed


def test_the_rule() -> None:
    candidates = {"q8_0": {"rise": 0.001, "bytes": 8}, "q5_0": {"rise": 0.01, "bytes": 5}, "q4_0": {"rise": 0.05, "bytes": 4}}
    assert [smallest(candidates, allowed) for allowed in (0.1, 0.02, 0.005, 0.0)] == ["q4_0", "q5_0", "q8_0", "q8_0"]


def test_held_out_texts_are_of_the_validation_split(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    found = evaluation_texts(inputs["evaluation_sets"], "validation", 9)
    assert sorted(text for _, text in found) == sorted(f"{line}\nfine" for line in LINES)
    assert [doc_id for doc_id, _ in evaluation_texts(inputs["evaluation_sets"], "test", 9)] == ["9"]
    pq.write_table(pa.Table.from_pylist([{"doc_id": "9", "text": "x", "split": "test"}]), tmp_path / "evaluation.parquet")
    with pytest.raises(ValueError, match="no validation text"):
        evaluation_texts(trained.artifact(tmp_path, "evaluation_sets"), "validation", 3)


def test_an_encoder_decoder_is_refused_with_the_reason(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    from llm_assets_tests.training.talking import reading_checkpoint

    given = {**inputs, "finetuned_model": trained.artifact(reading_checkpoint(), "finetuned_model")}
    with pytest.raises(ShapeError, match=r"t5 is an encoder-decoder, which is not served: .* stand in finetuned_model, with which its chain ends"):
        make(Store(tmp_path), LINK, CONFIG, given, seed=0, launch=trained.launch_quietly)


def test_a_tuned_prefix_is_refused_with_the_remedy(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """Its weights alone would be rounded as if they were the model."""
    folder = Path(shutil.copytree(inputs["finetuned_model"].directory, tmp_path / "prefixed"))
    (folder / "adapter").mkdir()
    write_json(folder / "adapter" / "adapter_config.json", {"peft_type": "PREFIX_TUNING"})
    given = {**inputs, "finetuned_model": trained.artifact(folder, "finetuned_model")}
    with pytest.raises(ShapeError, match=r"a tuned prefix .* its chain ends at finetuned_model, where its scores stand. To go on take prompt"):
        make(Store(tmp_path / "home"), LINK, CONFIG, given, seed=0, launch=trained.launch_quietly)
