"""Span denoising: items by seed and position, documents that do not see each other, and a T5 that learns and is saved as transformers' own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from llm_assets.training.decoders import DecoderError, DecoderShape
from llm_assets.training.denoising import CollateExamples, Denoised, Example, trained_encoder_decoder
from llm_assets.training.encoder_decoders import EncoderDecoderShape, new_encoder_decoder, refuse_unfit
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Denoising, TrainingJob
from llm_assets.training.muon import is_matrix
from llm_assets_tests.links import trained

PAD, OPEN, CLOSE = 0, 2, 3
TOKENIZER = SimpleNamespace(pad_token_id=PAD, cls_token_id=OPEN, sep_token_id=CLOSE)
SHAPE = EncoderDecoderShape(hidden=32, layers=3, heads=4, intermediate=48)
VOCABULARY = 40


def model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return trained_encoder_decoder(new_encoder_decoder(SHAPE, TOKENIZER, VOCABULARY))


def denoised(seed: int = 0, **settings: float) -> Denoised:
    inputs = trained.denoising_corpus()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(inputs["tokenizer"].directory)
    return Denoised(Denoising(tokens=inputs["tokens"].directory, **settings), tokenizer, numpy.arange(80), seed)


def test_spans_depend_on_seed_and_position_alone() -> None:
    first, second, other = denoised(), denoised(), denoised(seed=1)
    second[3]  # reading something else before changes nothing
    for one, same in zip(first[7], second[7], strict=True):
        assert (one == same).all()
    assert len(first[7].source) == len(other[7].source) and (first[7].source != other[7].source).any()


def test_each_documents_spans_begin_at_the_first_sentinel_and_its_frame_is_never_cut_out() -> None:
    data = denoised(corruption=0.3, mean_span=5)  # 10 of the 32 tokens of a block in 2 spans, 4 of a whole document's 12 in one
    first = data.sentinels[0]
    for position in range(20):
        block, example = data.blocks[position], data[position]
        for number in set(example.target_text.tolist()):
            source, target = example.source[example.source_text == number], example.target[example.target_text == number]
            assert target[0] == first and target[-1] == data.closing and not {data.opening, data.padding} & set(target.tolist())
            assert [token for token in source if token in data.sentinels] == [token for token in target if token in data.sentinels]
        for frame in (data.opening, data.closing):
            assert (example.source == frame).sum() == (block == frame).sum()
        assert (example.source == first).sum() > 1 or (block == data.opening).sum() < 3
        left = (~numpy.isin(example.source, data.sentinels)).sum()
        cut = (~numpy.isin(example.target, [*data.sentinels, data.closing])).sum()
        assert left + cut == (block != data.padding).sum()


def test_a_batch_by_hand() -> None:
    batch = CollateExamples(PAD, OPEN)([Example.of([([5, 6], [9, 8]), ([7], [4])]), Example.of([([5], [])])])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, PAD, PAD]]
    assert batch["decoder_input_ids"].tolist() == [[OPEN, 9, OPEN], [PAD, PAD, PAD]]
    assert batch["labels"].tolist() == [[9, 8, 4], [IGNORED] * 3]
    assert batch["attention_mask"][0, 0].int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert batch["decoder_attention_mask"][0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert batch["cross_attention_mask"][0, 0].int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_it_learns_and_is_saved_as_transformers_own(tmp_path: Path) -> None:
    t5, collate, random = model(), CollateExamples(PAD, OPEN), numpy.random.default_rng(0)
    sources = random.integers(10, VOCABULARY, (16, 6)).tolist()
    batch = collate([Example.of([(source, [*source[:2], CLOSE]) for source in sources[place : place + 2]]) for place in range(0, 16, 2)])
    update = torch.optim.AdamW(t5.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = t5(**batch).loss
        losses.append(float(loss.detach()))
        loss.backward()
        update.step()
        update.zero_grad()
    assert losses[0] == pytest.approx(math.log(VOCABULARY), abs=0.3) and losses[-1] < losses[0] - 1.5
    t5.save_pretrained(tmp_path)
    loaded, found = T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert loaded.lm_head.weight is loaded.shared.weight and not loaded.config.scale_decoder_outputs
    assert sum(weight.numel() for weight in loaded.parameters()) == SHAPE.parameters(VOCABULARY)
    # Each text alone through transformers' own forward pass is what was trained, with a neighbour in its block and padding after it.
    alone = []
    for source in sources:
        target = [*source[:2], CLOSE]
        logits = loaded(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[OPEN, *target[:-1]]])).logits[0]
        alone += cross_entropy(logits, torch.tensor(target), reduction="none").tolist()
    assert t5(**batch).loss.item() == pytest.approx(sum(alone) / len(alone), abs=1e-5)
    longer = collate([Example.of([(sources[0], [*sources[0][:2], CLOSE])]), Example.of([(list(range(10, 30)), [CLOSE] * 9)])])
    longer["labels"][1] = IGNORED
    assert t5(**longer).loss.item() == pytest.approx(sum(alone[:3]) / 3, abs=1e-5)


def test_a_batch_that_asks_for_nothing_has_no_loss_and_a_finite_gradient() -> None:
    t5 = model()
    t5(**CollateExamples(PAD, OPEN)([Example.of([([5, 6], [])])])).loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in t5.parameters() if weight.grad is not None)


def test_weights_that_write_into_a_residual_stream_start_smaller() -> None:
    weights = dict(new_encoder_decoder(SHAPE.model_copy(update={"hidden": 256, "intermediate": 512}), TOKENIZER, VOCABULARY).state_dict())
    assert float(weights["shared.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(weights["encoder.block.1.layer.1.DenseReluDense.wo.weight"].std()) == pytest.approx(0.02 / 2, rel=0.05)
    assert float(weights["decoder.block.0.layer.1.EncDecAttention.o.weight"].std()) == pytest.approx(0.02 / math.sqrt(3), rel=0.05)


def test_muon_takes_the_layers_matrices_and_not_the_biases_of_distances() -> None:
    matrices = {name for name, weight in model().named_parameters() if is_matrix(name, weight)}
    assert "decoder.block.0.layer.1.EncDecAttention.q.weight" in matrices and len(matrices) == 2 * 7 + 11
    assert not any("bias" in name or "shared" in name for name in matrices)


def test_shapes_and_checkpoints_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"heads \(5\) must divide hidden \(32\)"):
        EncoderDecoderShape(hidden=32, layers=2, heads=5, intermediate=48)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        EncoderDecoderShape(hidden=32, layers=1, heads=4, intermediate=48)
    with pytest.raises(DecoderError, match="mine is a bart, and of encoder-decoders t5 alone is trained"):
        refuse_unfit({"model_type": "bart", "is_encoder_decoder": True}, "mine")


def test_a_job_tells_its_shape_from_the_others(tmp_path: Path) -> None:
    common = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 1, "evaluate_every": 1, "objective": Denoising(tokens=tmp_path)}
    decoder = DecoderShape(architecture="llama", hidden=32, layers=2, heads=4, key_value_heads=4, intermediate=48)
    for given in (SHAPE, decoder):
        path = TrainingJob(**common, shape=given).write(tmp_path / "job.json")
        assert TrainingJob.read(path).shape == given and json.loads(path.read_text())["objective"]["mean_span"] == 3
