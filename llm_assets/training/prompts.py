"""Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691): vectors are learnt that stand before every conversation.

They are trained as special tokens of the vocabulary, which begin the chat template, beside frozen weights; so conversations are packed and
asked as ever. Merged they are rows of the embeddings, and what is rounded and served is an ordinary model. No text may contain them
and no model may say them: a tied head is untied, and gives each the score of the token that opens a text, which no training text
has after another; generation_config.json and GGUF say besides that they are suppressed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM

from llm_assets.corpus.vocabulary import VIRTUAL
from llm_assets.training.chat import Chat

WEIGHTS = "adapter_model.safetensors"  # PEFT's file, in which its name for them is:
VECTORS = "prompt_embeddings"


def extend(tokenizer: Path, folder: Path, count: int) -> Path:
    """Write into ``folder`` a tokenizer with ``count`` virtual tokens after its own; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in tokenizer.glob("*token*.json"):
        shutil.copyfile(path, folder / path.name)
    extended = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    extended.add_special_tokens([AddedToken(VIRTUAL.format(number), special=True, normalized=False) for number in range(count)])
    extended.save(str(folder / "tokenizer.json"))
    return folder


class Prompted(nn.Module):
    """Token embeddings [vocabulary, hidden] that go on with those of virtual tokens."""

    def __init__(self, words: nn.Module, virtual: nn.Embedding, first: int) -> None:
        super().__init__()
        self.words = words
        self.virtual = virtual
        self.first = first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Vectors [..., hidden] of token ids [...]."""
        is_virtual = ids >= self.first
        virtual = self.virtual((ids - self.first).clamp(min=0, max=self.virtual.num_embeddings - 1))
        return torch.where(is_virtual[..., None], virtual, self.words(ids.masked_fill(is_virtual, 0)))


def look_up(model: Any, first: int) -> Any:
    """A ``PeftModel`` made to find its vectors in its tokens, from id ``first`` on: PEFT's own way puts them before a whole block."""
    decoder = model.base_model
    (encoder,) = model.prompt_encoder.values()
    decoder.set_input_embeddings(Prompted(decoder.get_input_embeddings(), encoder.embedding, first))
    model.forward = decoder.forward
    return model


def merge(base: Path, adapter: Path, folder: Path, chat: Chat) -> None:
    """Write into ``folder`` the model that ``base`` is with the vectors in ``adapter`` as the embeddings of the chat's virtual tokens."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True)
    vectors, places = load_file(adapter / WEIGHTS)[VECTORS], torch.tensor(chat.virtual)
    head, size = model.get_output_embeddings(), max(model.config.vocab_size, int(places.max()) + 1)
    model.config.tie_word_embeddings = False
    head.weight = nn.Parameter(head.weight.detach().clone())
    model.resize_token_embeddings(size, mean_resizing=False)
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    with torch.no_grad():
        words.weight[places] = vectors / getattr(words, "scalar_embed_scale", 1.0)  # Gemma's are multiplied when they are looked up
        head.weight[places] = head.weight[chat.opening].clone()
    model.save_pretrained(folder)
