"""Prefix tuning (Li & Liang 2021, https://arxiv.org/abs/2101.00190): keys and values of every layer are learnt that stand before every conversation.

They are PEFT's, which puts them into the cache before a text, as the keys and values of its first positions: they are not rotated, and the
text's own positions begin after them. In packed blocks each conversation sees them and none of the others (``attention.by_document``).
Nothing merges them into weights; a folder of such a model has the checkpoint's weights and, beside them, the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM

from llm_assets.training.attention import PREFIX, Packing


def stand_before(model: Any) -> Any:
    """A ``PeftModel`` made to put its prefix before each of ``documents``; PEFT's own way is before a whole block.

    Keys and values begin as those of tokens drawn from the vocabulary by the seed: begun at random they learn worse and less surely (Li &
    Liang, section 7.4).
    """
    decoder = model.base_model
    (encoder,) = model.prompt_encoder.values()
    count = encoder.embedding.num_embeddings
    with torch.no_grad():
        encoder.embedding.weight.copy_(_read(decoder, torch.randint(decoder.config.vocab_size, (1, count))))

    def forward(*, position_ids: torch.Tensor, documents: Mapping[str, torch.Tensor], **batch: Any) -> Any:
        """What the decoder gives, from position ``count`` on in each document."""
        return decoder(position_ids=position_ids + count, documents={**documents, PREFIX: _learnt(model)}, **batch)

    model.forward = forward
    return model


def _learnt(model: Any) -> torch.Tensor:
    """Keys and values [layers, 2, heads of them, count, size], as PEFT puts them into a cache."""
    cache = model.get_prompt(batch_size=1)
    return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])


def _read(decoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """Keys and values of tokens [1, count] in PEFT's order of weights: [count, layers x (keys, values) x heads of them x size]."""
    count = ids.shape[1]
    documents = Packing(numpy.zeros((1, count), numpy.int64)).tensors()
    cache = decoder.base_model(input_ids=ids, position_ids=torch.arange(count)[None], documents=documents, use_cache=True).past_key_values
    found = [one[0].transpose(0, 1) for layer in cache.layers for one in (layer.keys, layer.values)]
    return torch.stack(found, 1).reshape(count, -1)


def keep(base: Path, folder: Path) -> None:
    """Write into ``folder`` the frozen weights of ``base``, beside which the adapter in it stands."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True)
    model.save_pretrained(folder)
