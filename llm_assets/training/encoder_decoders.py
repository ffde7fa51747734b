"""Encoder-decoders that are trained from nothing: T5's shape in its version 1.1, as transformers has it.

An encoder reads the source, a decoder writes the answer and attends to what was read (Raffel et al. 2020, https://arxiv.org/abs/1910.10683):
relative positions by learned biases, RMS norms, gated GELU (Shazeer 2020), no biases, no dropout. Embeddings and head are one matrix, unlike
version 1.1's own: transformers ties them in every T5, and so are those of the decoder that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from llm_assets.store.strict import Strict
from llm_assets.training.decoders import DecoderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_TYPE = "t5"
GELU = "gated-gelu_pytorch_tanh"  # version 1.1's function, approximated by tanh as there, in one pass instead of eight
BUCKETS, DISTANCE = 32, 128  # of relative positions, and the one from which on all are alike: T5's
RESIDUAL = ("o", "wo")  # the matrices that write into the residual stream


def is_one(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's configuration is an encoder-decoder's."""
    return bool(config.get("is_encoder_decoder"))


def refuse_unfit(config: Mapping[str, Any], name: str) -> None:
    """Raise ``DecoderError`` for a checkpoint whose configuration is of a shape that no test trains."""
    kind = config.get("model_type")
    if kind != MODEL_TYPE:
        raise DecoderError(f"{name} is a {kind}, and of encoder-decoders {MODEL_TYPE} alone is trained: take one")


class EncoderDecoderShape(Strict):
    """The dimensions of an encoder-decoder."""

    architecture: Literal["t5"] = Field("t5", description="whose layers they are")
    hidden: int = Field(ge=8, description="width of the residual streams")
    layers: int = Field(ge=2, description="transformer layers, the encoder's and the decoder's: half each, of an odd number the encoder one more")
    heads: int = Field(ge=1, description="attention heads; must divide hidden")
    intermediate: int = Field(ge=8, description="width of the gated feed-forward layers")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of new weights")

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderDecoderShape:
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder, which attend to the source besides."""
        return self.layers // 2

    @property
    def encoder_layers(self) -> int:
        """Layers of the encoder."""
        return self.layers - self.decoder_layers

    @property
    def body_parameters(self) -> int:
        """Weights of the layers' matrices: queries, keys, values, output, those of attention to the source, and the feed-forward layers' three."""
        attentions = self.layers + self.decoder_layers
        return 4 * self.hidden**2 * attentions + 3 * self.hidden * self.intermediate * self.layers

    def parameters(self, vocabulary: int) -> int:
        """Weights in all: those, embeddings, norms, and the biases of relative positions."""
        norms = self.hidden * (2 * self.encoder_layers + 3 * self.decoder_layers + 2)
        return self.body_parameters + vocabulary * self.hidden + norms + 2 * BUCKETS * self.heads


def new_encoder_decoder(shape: EncoderDecoderShape, tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> PreTrainedModel:
    """An encoder-decoder with random weights, which begin as a decoder's do and not as T5's.

    Normal with the deviation ``initializer_range``, and where they write into a residual stream divided by the root of how many of its
    matrices do (Radford et al. 2019, section 2.3). T5's embeddings begin with a deviation of 1: Adafactor's updates are relative to a
    weight's size and move them, Adam's are not. The opening token begins an answer and the closing token ends one.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "d_model": shape.hidden,
        "d_kv": shape.hidden // shape.heads,
        "d_ff": shape.intermediate,
        "num_layers": shape.encoder_layers,
        "num_decoder_layers": shape.decoder_layers,
        "num_heads": shape.heads,
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": DISTANCE,
        "feed_forward_proj": GELU,
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,  # as version 1.1 says it: the head's input is not scaled; transformers ties them all the same
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "decoder_start_token_id": tokenizer.cls_token_id,
    }
    model: PreTrainedModel = T5ForConditionalGeneration(T5Config(**settings))
    writers = {"encoder": 2 * shape.encoder_layers, "decoder": 3 * shape.decoder_layers}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue  # norms begin at 1
            stack, matrix = name.partition(".")[0], name.split(".")[-2]
            weight.normal_(0, shape.initializer_range / (math.sqrt(writers[stack]) if matrix in RESIDUAL else 1))
    return model
