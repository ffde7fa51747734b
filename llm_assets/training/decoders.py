"""Decoders that are trained from nothing: the shapes there are, by the names transformers has for them.

Each is a model of transformers' own, so that ``AutoModelForCausalLM``, adapters and the GGUF export load what training wrote. To add one:
its configuration's and model's names and what it asks for beyond the common dimensions, a line in ``ARCHITECTURES``; a test trains every one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Architecture = Literal["llama", "qwen3", "gemma", "glm"]
POSITIONS = 2048  # that a model's configuration states at least; rotary positions need no table


class Family(NamedTuple):
    """An architecture's classes, and settings that are not transformers' default for it or differ between families."""

    config: str
    model: str
    settings: dict[str, Any]


ARCHITECTURES: dict[Architecture, Family] = {
    "llama": Family("LlamaConfig", "LlamaForCausalLM", {}),  # Touvron et al. 2023
    "qwen3": Family("Qwen3Config", "Qwen3ForCausalLM", {}),  # Yang et al. 2025: norms of queries and keys
    "gemma": Family("GemmaConfig", "GemmaForCausalLM", {}),  # Gemma Team 2024: embeddings times the root of the width, GELU
    "glm": Family("GlmConfig", "GlmForCausalLM", {"attention_bias": True}),  # GLM Team 2024: rotary positions on half of a head
}
ALIKE = ("mistral", "qwen2")  # others of transformers' whose layers have the same parts: continued and finetuned, not built here
RESIDUAL = ("o_proj", "down_proj")  # the matrices that write into the residual stream


class DecoderError(ValueError):
    """A checkpoint that is not trained here; the message says why and what to do."""


def refuse_unfit(config: Mapping[str, Any], name: str) -> None:
    """Raise ``DecoderError`` for a checkpoint whose configuration is of a shape that no test trains."""
    kind, known = config.get("model_type"), (*ARCHITECTURES, *ALIKE)
    if kind not in known:
        raise DecoderError(f"{name} is a {kind}, and conversations are learnt by decoders of these shapes: {', '.join(known)}; take one of them")


class DecoderShape(Strict):
    """The dimensions of a decoder."""

    architecture: Architecture = Field(description="whose layers they are")
    hidden: int = Field(ge=8, description="width of the residual stream")
    layers: int = Field(ge=1, description="transformer layers")
    heads: int = Field(ge=1, description="attention heads; must divide hidden")
    key_value_heads: int = Field(ge=1, description="heads of keys and values (Ainslie et al. 2023); must divide heads")
    intermediate: int = Field(ge=8, description="width of the gated feed-forward layer")
    tied: bool = Field(True, description="whether the head is the embeddings' matrix (Press & Wolf 2017)")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of new weights")

    @model_validator(mode="after")
    def _heads_divide(self) -> DecoderShape:
        if self.hidden % self.heads or self.hidden // self.heads % 2:
            raise ValueError(f"hidden ({self.hidden}) must be heads ({self.heads}) times an even number, since rotary positions come in pairs")
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads ({self.key_value_heads}) must divide heads ({self.heads}): each serves as many queries")
        return self

    @property
    def head(self) -> int:
        """Numbers of a head."""
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer's matrices: queries, keys, values, output, and the feed-forward layer's three."""
        return 2 * self.hidden * (self.hidden + self.key_value_heads * self.head) + 3 * self.hidden * self.intermediate

    def parameters(self, vocabulary: int) -> int:
        """Weights in all, norms included."""
        norms = 2 * self.hidden + (2 * self.head if self.architecture == "qwen3" else 0)
        biases = self.hidden + 2 * self.key_value_heads * self.head if self.architecture == "glm" else 0
        outside = (1 if self.tied else 2) * vocabulary * self.hidden + self.hidden
        return self.layers * (self.layer_parameters + norms + biases) + outside


def new_decoder(shape: DecoderShape, tokenizer: PreTrainedTokenizerFast, vocabulary: int, context: int) -> PreTrainedModel:
    """A decoder with random weights: normal, and where they write into the residual stream divided by the root of 2 * layers.

    (Radford et al. 2019, section 2.3.) The opening token begins a text and the closing token ends one.
    """
    import torch
    import transformers

    family = ARCHITECTURES[shape.architecture]
    config = getattr(transformers, family.config)(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head,
        intermediate_size=shape.intermediate,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=max(POSITIONS, context),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **family.settings,
    )
    model: PreTrainedModel = getattr(transformers, family.model)(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(tuple(f"{matrix}.weight" for matrix in RESIDUAL)):
                weight.div_(math.sqrt(2 * shape.layers))
    return model
