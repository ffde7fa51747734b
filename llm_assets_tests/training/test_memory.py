"""The estimate on cases worked by hand, and its activations against what autograd keeps of a real model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_assets.training import memory
from llm_assets.training.decoders import ARCHITECTURES, DecoderShape
from llm_assets.training.devices import Software, decide
from llm_assets.training.encoder_decoders import EncoderDecoderShape
from llm_assets.training.job import Causal, Classification, Conversation, Denoising, Masked, ModelShape, Preference, Rewarded, TrainingJob
from llm_assets.training.memory import Dimensions, MemoryRefusedError, activations, estimate, refuse_too_large

BILLION = Dimensions(10**9, 1000, 64, 2, 2, 128, gated=True, scores=False, sparse=True)


def kept_for_backward(model: torch.nn.Module, batch: Mapping[str, Any]) -> int:
    """The bytes that autograd keeps of a forward pass, the weights aside."""
    own, kept = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}, dict[int, torch.Tensor]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor  # held, so that no storage is counted twice under one address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


DEEP = Dimensions(3_000_000, 1000, 512, 24, 8, 1024, gated=True, scores=False, sparse=True)
GPU = {"kind": "cuda", "name": "A100", "count": 8, "memory_bytes": 80 * 2**30, "compute_capability": "8.0"}


def job(device: str = "cpu", masked: bool = True, **settings: object) -> TrainingJob:
    objective = Masked(tokens=Path("t")) if masked else Classification(train=Path("a"), evaluation=Path("b"), labels=("n", "p"))
    hardware = decide("auto", 1, [GPU] if device == "cuda" else [], Software(torch_has_cuda=True, flash_attention=False), packed=masked)
    common = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 3, "evaluate_every": 1, "micro_batch": 2, "hardware": hardware}
    return TrainingJob(objective=objective, **{**common, **settings})


def test_parameters_of_a_new_model_are_those_of_the_real_one() -> None:
    found = memory.new_model(ModelShape(hidden=32, layers=2, heads=2, intermediate=48), 27)
    assert found.parameters == 19515  # 27 x 32 + 32; 2 layers of 8,736 but one norm less; 32; 32 x 32 + 32 + 27


def test_a_pair_takes_two_sequences_and_all_its_scores() -> None:
    places = {"train": Path("a"), "evaluation": Path("b"), "max_length": 128}
    spoken = estimate(job().model_copy(update={"objective": Conversation(**places)}), 1, BILLION, 128)
    pairs = estimate(job().model_copy(update={"objective": Preference(method="dpo", beta=0.1, **places)}), 1, BILLION, 128)
    assert pairs.activations == 2 * spoken.activations and pairs.optimizer == spoken.optimizer
    assert pairs.logits == 3 * 4 * 1000 * (2 * 2 * 128)  # micro_batch 2, two replies, 128 tokens, 1,000 scores in three float32 copies


def test_rewards_take_a_second_model_and_the_scores_of_replies_alone() -> None:
    places = {"train": Path("a"), "evaluation": Path("b"), "max_length": 128}
    rewarded = Rewarded(rewards=[{"kind": "ends"}], group=2, answer_tokens=10, beta=0.1, **places)
    spoken = estimate(job().model_copy(update={"objective": Conversation(**places)}), 1, BILLION, 128)
    found = estimate(job().model_copy(update={"objective": rewarded}), 1, BILLION, 128)
    assert found.reference == 4 * 10**9 and spoken.reference == 0  # float32, whole, whatever is partitioned
    assert found.logits == 3 * 4 * 1000 * 2 * 10 and found.activations == spoken.activations
    frugal = job(activation_checkpointing=True).model_copy(update={"objective": rewarded})
    assert estimate(frugal, 1, DEEP, 128).activations == 4 * 2 * 24 * 512 * 4 * 2 * 128  # keys and values of 24 layers for four times 2 replies


def test_a_lighter_batch_keeps_groups_whole() -> None:
    rewarded = Rewarded(rewards=[{"kind": "ends"}], group=8, answer_tokens=10, beta=0.1, train=Path("a"), evaluation=Path("b"))
    asked = job(micro_batch=64).model_copy(update={"objective": rewarded})
    with pytest.raises(MemoryRefusedError, match="fits: micro_batch: 8, accumulation: 8, activation_checkpointing: true"):
        refuse_too_large(asked, 1, DEEP, 256, 2560 * 2**20)


def test_states_by_stage_as_in_the_paper() -> None:
    """Mixed precision, N = 4: 2 bytes of weights, 2 of gradients, 12 of states a parameter (Rajbhandari et al. 2020, figure 1)."""
    stages = {stage: estimate(job("cuda", zero_stage=stage), 4, BILLION, 128) for stage in (0, 1, 2, 3)}
    share = 250_000_000
    assert stages[0].weights == 2e9 and stages[0].gradients == (2 + 4) * 1e9 and stages[0].optimizer == 12e9  # DeepSpeed sums in float32
    assert stages[1].optimizer == (12 + 4) * share  # and a temporary of an update
    assert stages[1].gradients == 2e9 + 4 * share and stages[2].gradients == 2 * share + 4 * share
    assert stages[3].weights == 2 * share + 2e9  # up to 1e9 gathered parameters stay
    assert stages[0].total > stages[1].total > stages[2].total


def test_offload_leaves_the_device() -> None:
    here = estimate(job("cuda", zero_stage=3), 4, BILLION, 128)
    away = estimate(job("cuda", zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu"), 4, BILLION, 128)
    assert away.optimizer == 0 and here.weights - away.weights == 2 * 250_000_000


def test_float32_on_a_cpu_and_other_optimizers() -> None:
    plain, sgd = estimate(job(zero_stage=0), 1, BILLION, 128), estimate(job(zero_stage=0, optimizer="sgd"), 1, BILLION, 128)
    assert (plain.weights, plain.gradients, plain.optimizer, sgd.optimizer) == (4e9, 4e9, 8e9, 4e9)


@pytest.mark.parametrize("wide", [160, 320])
def test_activations_are_what_autograd_keeps(wide: int) -> None:
    """A layer's share of the storages saved for the backward pass, three layers more against three layers less."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    texts, length, hidden = 4, 32, 96

    def saved(layers: int) -> int:
        shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 3, "intermediate_size": wide}
        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id"), 0)
        model = ModernBertForMaskedLM(ModernBertConfig(vocab_size=50, sparse_prediction=True, **shape, **tokens)).train()
        mask = torch.ones(texts, 1, length, length, dtype=torch.bool)
        ids = torch.ones(texts, length, dtype=torch.int64)
        return kept_for_backward(model, {"input_ids": ids, "attention_mask": dict.fromkeys(model.config.layer_types, mask), "labels": ids})

    measured = saved(7) - saved(4)
    dimensions = {layers: Dimensions(0, 50, hidden, layers, 3, wide, gated=True, scores=False, sparse=True) for layers in (7, 4)}
    foreseen = {layers: activations(job(), found, texts * length, length, 4) for layers, found in dimensions.items()}
    assert foreseen[7] - foreseen[4] == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_decoders_activations_are_what_autograd_keeps(architecture: str) -> None:
    """The same of a decoder over packed documents of 20 tokens and 30, filled up to half as many places more."""
    import numpy

    from llm_assets.training.causal import CollateDocuments, trained_decoder
    from llm_assets.training.decoders import new_decoder

    tokenizer = SimpleNamespace(pad_token_id=0, cls_token_id=2, sep_token_id=3)
    batch = CollateDocuments(0, 2)([numpy.asarray(([2] + [7] * 19 + [2] + [8] * 29) * 2)] * 4)
    common = {"hidden": 96, "heads": 3, "key_value_heads": 3, "intermediate": 320}

    def saved(layers: int) -> int:
        model = trained_decoder(new_decoder(DecoderShape(architecture=architecture, layers=layers, **common), tokenizer, 50, 100)).train()
        return kept_for_backward(model, batch)

    causal = job().model_copy(update={"objective": Causal(tokens=Path("t"))})
    shapes = {layers: DecoderShape(architecture=architecture, layers=layers, **common) for layers in (2, 5)}
    foreseen = {layers: activations(causal, memory.new_decoder(one, 50), 400, 100, 4) for layers, one in shapes.items()}
    assert foreseen[5] - foreseen[2] == pytest.approx(saved(5) - saved(2), rel=0.1)


@pytest.mark.parametrize("mean_span", [1.0, 3.0])
def test_an_encoder_decoders_activations_are_what_autograd_keeps(mean_span: float) -> None:
    """Two layers more in each half; 128 tokens read and 0.15 of them, with their sentinels, written: 20 or 38."""
    from llm_assets.training.denoising import CollateExamples, Example, trained_encoder_decoder
    from llm_assets.training.encoder_decoders import new_encoder_decoder

    tokenizer = SimpleNamespace(pad_token_id=0, cls_token_id=2, sep_token_id=3)
    written = round(128 * 0.15 * (1 + 1 / mean_span))
    batch = CollateExamples(0, 2)([Example.of([([7] * 128, [8] * written)])] * 4)
    shapes = {layers: EncoderDecoderShape(hidden=96, heads=3, intermediate=320, layers=layers) for layers in (2, 6)}

    def saved(shape: EncoderDecoderShape) -> int:
        model = trained_encoder_decoder(new_encoder_decoder(shape, tokenizer, 50)).train()
        return kept_for_backward(model, batch)

    denoising = job(micro_batch=4).model_copy(update={"objective": Denoising(tokens=Path("t"), mean_span=mean_span)})
    foreseen = {layers: activations(denoising, memory.new(shape, 50), 4 * 128, 128, 4) for layers, shape in shapes.items()}
    assert foreseen[6] - foreseen[2] == pytest.approx(saved(shapes[6]) - saved(shapes[2]), rel=0.05)
    lighter = denoising.model_copy(update={"activation_checkpointing": True})
    assert activations(lighter, memory.new(shapes[6], 50), 4 * 128, 128, 4) < foreseen[6] / 2


def test_a_saved_encoder_decoder_has_the_dimensions_it_was_made_with() -> None:
    from llm_assets_tests.training.talking import reading_checkpoint, tokenizer

    made = EncoderDecoderShape(hidden=32, layers=2, heads=2, intermediate=48)
    assert memory.saved_model(reading_checkpoint()) == memory.new(made, len(tokenizer()))


def test_a_causal_models_scores_are_there_a_chunk_at_a_time() -> None:
    """256 positions of 1,000 tokens in two copies, and the gradient of 1,000 x 64 weights: 2.3 MB however long the batch."""
    causal = job(micro_batch=64).model_copy(update={"objective": Causal(tokens=Path("t"))})
    assert estimate(causal, 1, BILLION, 512).logits == 4 * (2 * 256 * 1000 + 1000 * 64)


def test_tensors_below_32_mib_leave_gaps_on_a_cpu_and_none_on_a_gpu() -> None:
    """512 vectors of 128 floats are 256 KiB; 2,000 times as many 500 MiB, and logits at 30% of their places 1.1 GiB."""
    small, large = (estimate(job(micro_batch=size), 1, BILLION, 512) for size in (1, 2000))
    assert small.gaps == int(0.6 * (small.activations + small.logits)) > 0
    assert large.gaps == 0 == estimate(job("cuda"), 1, BILLION, 512).gaps


def test_checkpointing_keeps_a_layers_input_alone() -> None:
    model = Dimensions(0, 50, 64, 10, 2, 128, gated=True, scores=False, sparse=True)
    found = activations(job(masked=False, activation_checkpointing=True), model, 100, 10, 2)
    assert found == 100 * 2 * (10 * 64 + 11 * 64 + 4 * 128 + 2 * 64)


def test_scores_grow_with_the_square_of_the_length() -> None:
    model = Dimensions(0, 50, 64, 1, 2, 128, gated=False, scores=True, sparse=False)
    assert activations(job(masked=False), model, 10, 10, 2) == 10 * 2 * (11 * 64 + 2 * 128 + 3 * 2 * 10 + 2 * 64)


@pytest.mark.parametrize(
    "settings, processes, parameters, memory_bytes, remedy",
    [
        ({"micro_batch": 64}, 1, 3_000_000, 10 * 2**30, "micro_batch: 32, accumulation: 2"),  # 15.3 GiB, 14.4 of them activations
        ({"micro_batch": 1}, 1, 3_000_000, 960 * 2**20, "activation_checkpointing: true"),
        ({"micro_batch": 1, "zero_stage": 0, "activation_checkpointing": True}, 4, 300_000_000, 5_800_000_000, "zero_stage: 1"),
        ({"micro_batch": 8}, 1, 3_000_000, 880 * 2**20, "micro_batch: 1, accumulation: 8, activation_checkpointing: true"),
        ({"micro_batch": 1}, 1, 3_000_000, 500 * 2**20, None),
    ],
)
def test_what_cannot_fit_is_refused_with_the_smallest_change(
    settings: dict[str, object], processes: int, parameters: int, memory_bytes: int, remedy: str | None
) -> None:
    model = Dimensions(parameters, 1000, 512, 24, 8, 1024, gated=True, scores=False, sparse=True)
    message = rf"Smallest change that fits: {remedy} \(about" if remedy else "No setting makes it fit"
    with pytest.raises(MemoryRefusedError, match=message):
        refuse_too_large(job(**settings), processes, model, 256, memory_bytes)


def test_a_gpu_may_be_relieved_by_offload() -> None:
    asked = job("cuda", micro_batch=1, activation_checkpointing=True)
    with pytest.raises(MemoryRefusedError, match=r"fits: zero_stage: 1, offload_optimizer: cpu \(about"):
        refuse_too_large(asked, 1, BILLION, 128, 16 * 2**30)


def test_what_fits_passes() -> None:
    assert refuse_too_large(job(), 1, BILLION, 128, 64 * 2**30).total == estimate(job(), 1, BILLION, 128).total
