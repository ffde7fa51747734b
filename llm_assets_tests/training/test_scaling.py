"""The dial's numbers worked by hand, and what a stated one moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llm_assets.training.decoders import DecoderShape
from llm_assets.training.encoder_decoders import EncoderDecoderShape
from llm_assets.training.scaling import DEPTH, derive


def values(size: str, processes: int = 2, **stated: float) -> dict[str, float]:
    return {name: entry.value for name, entry in derive(size, processes, stated).items()}


def test_small_by_hand() -> None:
    """4 layers of 256: 4 x (4 x 256^2 + 3 x 256 x 704) = 3,211,264 weights; 20 times that are 64,225,280 tokens, whose root is 8,014."""
    assert values("small") == {
        "layers": 4, "hidden": 256, "heads": 4, "key_value_heads": 4, "intermediate": 704,  # 8/3 x 256 = 682.7
        "tokens_budget": 64_225_280,
        "micro_batch": 16, "accumulation": 1,  # 2 x 8,014 down to 8,192 tokens: 32 sequences of 256
        "learning_rate": 0.003,
    }  # fmt: skip


def test_the_batch_stays_when_the_processes_change() -> None:
    for size in DEPTH:
        batches = {processes: values(size, processes)["micro_batch"] * values(size, processes)["accumulation"] * processes for processes in (1, 2, 4)}
        assert len(set(batches.values())) == 1, (size, batches)


def test_sizes_grow_in_everything_but_the_learning_rate() -> None:
    found = [values(size) for size in DEPTH]
    for below, above in pairwise(found):
        assert all(below[name] < above[name] for name in ("layers", "hidden", "heads", "intermediate", "tokens_budget"))
        assert below["learning_rate"] > above["learning_rate"] and below["micro_batch"] <= above["micro_batch"]


def test_a_stated_number_moves_those_that_follow_from_it_and_says_what_the_size_would_give() -> None:
    found = derive("small", 2, {"hidden": 512, "learning_rate": 0.01})
    assert (found["heads"].value, found["intermediate"].value) == (8, 1376)
    assert found["tokens_budget"].value == 20 * 4 * (4 * 512**2 + 3 * 512 * 1376)
    assert found["learning_rate"] == (0.01, "stated; size small alone would give 0.0015")
    assert found["hidden"].reason == "stated; size small alone would give 256"
    assert "Hoffmann et al. 2022" in found["tokens_budget"].reason and all(entry.reason for entry in found.values())


@pytest.mark.parametrize("size", DEPTH)
def test_an_encoder_decoder_has_a_decoders_layers_and_weights(size: str) -> None:
    """Of `micro`: 3 layers of 192, one of them the decoder's with 4 x 192^2 weights more; 512 - 4 x 192 / 9 = 426.7, so 416."""
    decoder, both = values(size), {name: entry.value for name, entry in derive(size, 2, {}, encoder_decoder=True).items()}
    assert "key_value_heads" not in both and {name: both[name] for name in ("layers", "hidden", "heads")} == {
        name: decoder[name] for name in ("layers", "hidden", "heads")
    }
    plain = DecoderShape(architecture="llama", **{name: decoder[name] for name in DecoderShape.model_fields if name in decoder})
    shape = EncoderDecoderShape(**{name: both[name] for name in EncoderDecoderShape.model_fields if name in both})
    assert shape.body_parameters == pytest.approx(plain.layers * plain.layer_parameters, rel=0.025)
    assert shape.parameters(8192) == pytest.approx(plain.parameters(8192), rel=0.02)
    assert both["tokens_budget"] == 20 * shape.body_parameters and (size != "micro" or both["intermediate"] == 416)


@pytest.mark.parametrize("size", DEPTH)
def test_no_number_is_nothing(size: str) -> None:
    assert all(entry > 0 for entry in values(size, 8).values())
