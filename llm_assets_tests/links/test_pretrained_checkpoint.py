"""Pretraining through the real worker: it learns, says how, and its checks fail when they should."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from llm_assets.links.link import Bench
from llm_assets.links.pretrained_checkpoint import LINK, PretrainedCheckpointConfig
from llm_assets.training.decoders import DecoderError
from llm_assets.training.encoder_decoders import EncoderDecoderShape
from llm_assets_tests.links import trained
from llm_assets_tests.training.room import launch_in_room


def verdict(artifact, name):
    return next(check for check in LINK.checks if check.name == name).judge(artifact, {})


def test_it_learns_and_passes_its_checks() -> None:
    outcome = trained.pretrained()
    assert [found.passed for found in outcome.verdicts] == [True, True], outcome.verdicts
    metrics = outcome.artifact.metrics
    assert metrics["steps"] == 40 and metrics["resumed_from"] == 0 and metrics["world_size"] == 2
    assert metrics["tokens"] == 40 * 2 * 4 * trained.CONTEXT
    files = {"config.json", "model.safetensors", "curve.parquet", "plots/loss.png", "training.json", "pages/training.html"}
    assert files == set(outcome.artifact.manifest.files)


def test_what_was_derived_is_recorded_with_its_reason_and_the_memory_beside_what_was_foreseen() -> None:
    made = trained.pretrained().artifact
    record = made.json("training.json")
    assert record["derived"]["batch"] == {"value": 8, "reason": "micro_batch 4 x accumulation 1 x processes 2: sequences an update"}
    assert all(entry["reason"] for entry in record["derived"].values())
    assert record["deepspeed"]["zero_optimization"]["stage"] == 2 and record["deepspeed"]["optimizer"]["params"]["lr"] == 1e-2
    assert "auto" not in json.dumps(record["deepspeed"])
    assert made.metrics["hardware"]["precision"] == "float32"
    assert 0.7 < made.metrics["memory_estimate_bytes"] / made.metrics["memory_measured_bytes"] < 1.4
    assert "float32" in made.path("pages/training.html").read_text()


def test_loss_fell_fails_on_a_loss_that_did_not_fall() -> None:
    made = trained.pretrained().artifact
    assert not verdict(trained.changed(made, {"last_loss": made.metrics["first_loss"]}), "loss_fell").passed
    assert not verdict(trained.changed(made, {"validation_loss": made.metrics["uniform_loss"]}), "loss_fell").passed
    assert not verdict(trained.changed(made, {"validation_loss": float("nan")}), "loss_fell").passed


def test_weights_finite_fails_on_a_single_nan(tmp_path: Path) -> None:
    made = trained.pretrained().artifact
    weights = load_file(made.path("model.safetensors"))
    weights["model.final_norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    found = verdict(trained.changed(made, directory=tmp_path), "weights_finite")
    assert not found.passed and "model.final_norm.weight" in found.description


def test_a_decoder_learns_and_states_bits_per_byte_and_every_number_of_its_dial(tmp_path: Path) -> None:
    inputs = trained.corpus()
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir(), scratch.mkdir()
    changes = {"objective": "causal", "tied": False, "embeddings": "cooccurrence", "processes": 1, "accumulation": None, "intermediate": None}
    config = trained.PRETRAINING.model_copy(update=changes)
    made = LINK.make(Bench(out, scratch, 1, tmp_path, launch_in_room), config, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)
    found = made.metrics
    assert found["first_loss"] < found["uniform_loss"] - 0.3  # it starts as a bigram model
    assert found["last_loss"] < found["first_loss"] and found["perplexity"] == pytest.approx(math.exp(found["validation_loss"]))
    # Each character is a token of three bytes, and of 14 tokens of a document, its opening one apart, the closing one writes nothing.
    assert found["bits_per_byte"] == pytest.approx(found["validation_loss"] / math.log(2) / (3 * 12 / 13), rel=0.05)
    derived = json.loads((out / "training.json").read_text())["derived"]
    assert derived["intermediate"] == {"value": 96, "reason": derived["intermediate"]["reason"]} and "Shazeer" in derived["intermediate"]["reason"]
    assert derived["hidden"]["reason"] == "stated; size micro alone would give 128"
    assert found["settings"]["intermediate"] == f"96: {derived['intermediate']['reason']}"
    assert found["memory_estimate_bytes"] < 1.4 * found["memory_measured_bytes"]  # of a process that may have trained before, so no lower bound
    assert json.loads((out / "config.json").read_text())["use_cache"] is True


def test_an_encoder_decoder_learns_to_write_what_was_cut_out(tmp_path: Path) -> None:
    inputs = trained.corpus_of("span_denoising")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir(), scratch.mkdir()
    config = trained.PRETRAINING.model_copy(update={"objective": "span_denoising", "processes": 1, "accumulation": None, "intermediate": None})
    made = LINK.make(Bench(out, scratch, 1, tmp_path, launch_in_room), config, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)
    found = made.metrics
    assert found["last_loss"] < found["first_loss"] - 0.3 and found["validation_loss"] < found["uniform_loss"] - 0.3
    assert not {"bits_per_byte", "perplexity", "share_of_matmul_speed"} & found.keys()  # its loss is of no text as it stands
    told = json.loads((out / "config.json").read_text())
    assert told["model_type"] == "t5" and told["decoder_start_token_id"] == 2 and told["use_cache"] is True
    assert found["parameters"] == EncoderDecoderShape(hidden=32, layers=2, heads=2, intermediate=64).parameters(29)  # 96 - 2/3 x 32 = 74.7, so 64
    assert found["body_parameters"] > 0.9 * 4 * 32**2 * 3 and "equal weights" in found["settings"]["intermediate"]
    assert found["memory_estimate_bytes"] < 1.4 * found["memory_measured_bytes"]
    assert not json.loads((out / "training.json").read_text())["derived"].keys() & {"key_value_heads"}


def test_an_encoder_decoder_without_sentinels_or_of_another_kind_is_refused_before_launch(tmp_path: Path) -> None:
    config = trained.PRETRAINING.model_copy(update={"objective": "span_denoising"})

    def refused(objective: str, **changes: str) -> None:
        inputs = trained.corpus_of(objective)
        bench = Bench(tmp_path, tmp_path, 1, tmp_path, lambda *_: pytest.fail("launched"))
        LINK.make(bench, config.model_copy(update=changes), inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)

    with pytest.raises(ValueError, match=r"cuts up to 2 spans .* no <extra_id_0> to stand for one: set tokenizer.sentinels to 2 or more"):
        refused("masked")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart", "vocab_size": 99}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DecoderError, match="is a bart, and of encoder-decoders t5 alone is trained"):
        refused("span_denoising", from_pretrained=str(tmp_path))


def test_the_recipe_of_an_encoder_knows_nothing_of_decoders_and_the_dial_is_no_part_of_a_decoders() -> None:
    masked = PretrainedCheckpointConfig(zero_stage=3).recipe()
    assert masked["hidden"] == 192 and masked["tokens_budget"] == 1_200_000 and masked["batch"] == 32 and masked["learning_rate"] == 2e-3
    assert not {"objective", "size", "architecture", "tied", "key_value_heads", "corruption", "mean_span"} & masked.keys()
    small = PretrainedCheckpointConfig(objective="causal", size="small").recipe()
    stated = {name: small[name] for name in ("layers", "hidden", "heads", "key_value_heads", "intermediate", "tokens_budget", "learning_rate")}
    by_hand = PretrainedCheckpointConfig(objective="causal", size="nano", micro_batch=8, accumulation=2, **stated)
    assert by_hand.recipe() == small and "mask_probability" not in small
    again = PretrainedCheckpointConfig.model_validate(PretrainedCheckpointConfig(objective="causal", size="small").model_dump(mode="json"))
    assert again.recipe() == small  # Dagster's run config states every key
    assert not {"corruption", "mean_span"} & small.keys()
    both = PretrainedCheckpointConfig(objective="span_denoising", size="small")
    assert both.recipe()["corruption"] == 0.15 and not {"key_value_heads", "tied", "embeddings", "mask_probability"} & both.recipe().keys()
    assert PretrainedCheckpointConfig.model_validate(both.model_dump(mode="json") | {"architecture": "t5"}).recipe() == both.recipe()


def test_keys_of_the_other_objective_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"size, architecture: has no meaning with objective masked"):
        PretrainedCheckpointConfig(size="small", architecture="glm")
    with pytest.raises(ValidationError, match=r"next_sentence: has no meaning with objective causal"):
        PretrainedCheckpointConfig(objective="causal", next_sentence=True)
    with pytest.raises(ValidationError, match=r"key_value_heads: has no meaning with objective span_denoising"):
        PretrainedCheckpointConfig(objective="span_denoising", key_value_heads=1)
    for objective, architecture in (("span_denoising", "llama"), ("causal", "t5")):
        with pytest.raises(ValidationError, match=f"architecture {architecture} is not trained with objective {objective}"):
            PretrainedCheckpointConfig(objective=objective, architecture=architecture)
    with pytest.raises(ValidationError, match="tied: false is not possible with objective span_denoising"):
        PretrainedCheckpointConfig(objective="span_denoising", tied=False)


def test_a_second_half_is_told_from_another_documents_and_the_head_for_it_is_not_saved(tmp_path: Path) -> None:
    """Continued from a checkpoint, whose configuration and tensors are those of the result."""
    reference, inputs = trained.pretrained().artifact, trained.corpus()
    settings = {"from_pretrained": str(reference.directory), "next_sentence": True, "steps": 8, "processes": 1, "required_drop": 0.0}
    config = PretrainedCheckpointConfig(**{**trained.PRETRAINING.model_dump(), **settings})
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir(), scratch.mkdir()
    made = LINK.make(Bench(out, scratch, 1, tmp_path, launch_in_room), config, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)
    assert made.metrics["next_sentence_documents"] > 10 and 0 < made.metrics["next_sentence_accuracy"] <= 1
    # Not below where it began by more than a little: the masked loss is measured on documents as they are.
    assert made.metrics["validation_loss"] < reference.metrics["validation_loss"] + 0.2
    assert load_file(out / "model.safetensors").keys() == load_file(reference.path("model.safetensors")).keys()


def test_a_checkpoint_continued_from_brings_its_licence(tmp_path: Path) -> None:
    def licenses(**config: str) -> tuple[str, ...]:
        def copy_weights(job: Path, processes: int, progress: object) -> None:
            for name in ("curve.parquet", "model.safetensors"):
                shutil.copy(made.path(name), tmp_path)
            keys = ("body_parameters", "tokens")
            (tmp_path / "summary.json").write_text(json.dumps({key: made.metrics[key] for key in keys}))

        made, inputs = trained.pretrained().artifact, trained.corpus()
        bench = Bench(tmp_path, tmp_path, 1, tmp_path, copy_weights)
        given = PretrainedCheckpointConfig(**{**trained.PRETRAINING.model_dump(), **config})
        return LINK.make(bench, given, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE).licenses

    folder = str(trained.pretrained().artifact.directory)
    assert licenses() == ()
    assert licenses(from_pretrained=folder) == ("not stated",)
    assert licenses(from_pretrained=folder, license="Apache-2.0") == ("Apache-2.0",)


def test_heads_that_do_not_divide_hidden_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"hidden \(192\) must be heads \(5\)"):
        PretrainedCheckpointConfig(hidden=192, heads=5)
