"""Causal batches by hand, every architecture trained for a few updates, and what a document's neighbours may not change."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from llm_assets.training.causal import CollateDocuments, Order, trained_decoder
from llm_assets.training.decoders import ARCHITECTURES, DecoderShape, new_decoder
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Causal, ModelShape, TrainingJob
from llm_assets.training.trainer import Worker

PAD, OPEN, CLOSE = 0, 2, 3
TOKENIZER = SimpleNamespace(pad_token_id=PAD, cls_token_id=OPEN, sep_token_id=CLOSE)
VOCABULARY, CONTEXT = 40, 24


def shape(architecture: str, **changes: object) -> DecoderShape:
    common = {"hidden": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "intermediate": 48}
    return DecoderShape.model_validate({"architecture": architecture, **common, **changes})


def decoder(architecture: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return trained_decoder(new_decoder(shape(architecture, **changes), TOKENIZER, VOCABULARY, CONTEXT))


def blocks(count: int, seed: int = 0) -> numpy.ndarray:
    random = numpy.random.default_rng(seed)
    ids = random.integers(4, VOCABULARY, (count, CONTEXT))
    ids[random.random(ids.shape) < 0.1] = OPEN
    return ids


def test_labels_are_the_next_tokens_of_the_same_document() -> None:
    batch = CollateDocuments(PAD, OPEN)([numpy.asarray([7, 8, 3, 2, 9, 3]), numpy.asarray([2, 5, 3, 0, 0, 0])])
    assert batch["labels"].tolist() == [[8, 3, IGNORED, 9, 3, IGNORED], [5, 3, IGNORED, IGNORED, IGNORED, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_and_is_saved_as_its_own(tmp_path: Path, architecture: str) -> None:
    model, collate = decoder(architecture), CollateDocuments(PAD, OPEN)
    batch = collate(list(blocks(8)))
    update = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        losses.append(float(loss.detach()))
        loss.backward()
        update.step()
        update.zero_grad()
    assert losses[0] == pytest.approx(math.log(VOCABULARY), abs=0.3) and losses[-1] < losses[0] - 0.5
    model.save_pretrained(tmp_path)
    loaded, found = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert loaded.config.model_type == architecture and (loaded.config.bos_token_id, loaded.config.eos_token_id) == (OPEN, CLOSE)
    assert sum(weight.numel() for weight in loaded.parameters()) == shape(architecture).parameters(VOCABULARY)
    # One document through transformers' own forward pass, labels and all, is what was trained.
    alone = numpy.asarray([OPEN, *range(5, 5 + CONTEXT - 1)])
    mine, theirs = model(**collate([alone])).loss, loaded(input_ids=torch.from_numpy(alone)[None]).logits[0, :-1]
    assert float(mine) == pytest.approx(float(cross_entropy(theirs, torch.from_numpy(alone[1:]))), abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_documents_loss_does_not_depend_on_its_neighbours(architecture: str) -> None:
    model, collate = decoder(architecture), CollateDocuments(PAD, OPEN)
    document = [OPEN, 11, 12, 13, 14, 15, CLOSE]
    first = numpy.asarray([*document, OPEN, 5, 6, 7, CLOSE])
    other = numpy.asarray([OPEN, 30, 31, 32, CLOSE, *document])

    def losses(ids: numpy.ndarray) -> list[float]:
        batch = collate([ids])
        hidden = model.model(**{name: batch[name] for name in ("input_ids", "position_ids", "documents")}, use_cache=False)[0]
        return cross_entropy(model.lm_head(hidden)[0], batch["labels"][0], reduction="none").tolist()

    assert losses(first)[:7] == pytest.approx(losses(other)[5:], abs=1e-5)


def test_weights_that_write_into_the_residual_stream_start_smaller() -> None:
    model = decoder("llama", hidden=128, heads=2, key_value_heads=2, intermediate=256, layers=8)
    weights = dict(model.named_parameters())
    assert float(weights["model.layers.3.mlp.up_proj.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(weights["model.layers.3.mlp.down_proj.weight"].std()) == pytest.approx(0.02 / 4, rel=0.05)


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    """Of 4 predicted tokens, each at a loss of log 8 nats, 3 write 2 bytes and the closing one none: 12 bits over 6 bytes."""
    worker = object.__new__(Worker)
    worker.job = TrainingJob(objective=Causal(tokens=tmp_path), tokenizer=tmp_path, output=tmp_path, scratch=tmp_path, steps=1, evaluate_every=1)
    worker.bytes_of_tokens = torch.tensor([0, 0, 0, 0, 2, 2])
    worker.args = SimpleNamespace(per_device_eval_batch_size=1, world_size=1, process_index=0, device=torch.device("cpu"))
    worker.data_collator, worker._prepare_inputs = CollateDocuments(PAD, OPEN), lambda batch: batch
    worker.model_wrapped = torch.nn.Module()
    worker.model_wrapped.forward = lambda **_: SimpleNamespace(loss=torch.tensor(math.log(8)))
    data = Order(numpy.asarray([[OPEN, 4, 5, 4, CLOSE]], dtype=numpy.uint16), numpy.asarray([0]))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = worker.evaluation_loop(SimpleNamespace(dataset=data), "").metrics
    finally:
        torch.distributed.destroy_process_group()
    assert found == {"eval_loss": pytest.approx(math.log(8)), "eval_bits_per_byte": pytest.approx(2.0)}


def test_a_job_tells_the_two_kinds_of_shape_apart(tmp_path: Path) -> None:
    common = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 1, "evaluate_every": 1, "objective": Causal(tokens=tmp_path)}
    for given in (ModelShape(), shape("glm")):
        job = TrainingJob(**common, shape=given)
        assert TrainingJob.read(job.write(tmp_path / "job.json")).shape == given


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"hidden \(32\) must be heads \(5\)"):
        shape("llama", heads=5, key_value_heads=5)
    with pytest.raises(ValidationError, match=r"key_value_heads \(3\) must divide heads \(4\)"):
        shape("llama", key_value_heads=3)
