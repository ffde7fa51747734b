"""A decoder of 20,000 parameters with a tokenizer for conversations, and conversations that it can learn: no process is started."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.vocabulary import Vocabulary, train
from llm_assets.store.files import write_json
from llm_assets.training.causal import CollateDocuments, trained_decoder
from llm_assets.training.chat import Chat, answers_of
from llm_assets.training.decoders import DecoderShape, new_decoder
from llm_assets.training.denoising import CollateExamples, Example, trained_encoder_decoder
from llm_assets.training.encoder_decoders import EncoderDecoderShape, new_encoder_decoder
from llm_assets_tests.links.trained import root

SHAPE = DecoderShape(architecture="llama", hidden=32, layers=2, heads=2, key_value_heads=1, intermediate=48)
NAMES = ("Anna", "Bert", "Carl", "Dora", "Emil", "Fritz", "Gina", "Hans", "Ida", "Jan")
COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "coal": "black", "snow": "white"}
LONGEST = 64  # tokens


def dialogues(count: int) -> list[str]:
    """Documents of two or four turns; colours can be learned, names be copied."""
    rng = random.Random(0)
    found = []
    for number in range(count):
        name, (thing, colour) = rng.choice(NAMES), rng.choice(sorted(COLOURS.items()))
        lines = [f"{name} asks: what colour has {thing}? {number}", f"{thing} is {colour}"]
        found.append("\n".join([*lines, "thank you", f"you are welcome, {name}"] if number % 2 else lines))
    return found


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": line} for place, line in enumerate(text.split("\n"))]


def table(path: Path, texts: list[str]) -> Path:
    """The texts as rows of labelled_examples."""
    rows = [{"doc_id": doc_id(text), "messages": messages(text), "task": "conversation", "source": "shop"} for text in texts]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@functools.cache
def tokenizer_folder() -> Path:
    folder = root() / "talking-tokenizer"
    folder.mkdir()
    train(Vocabulary(kind="byte_bpe", vocabulary=600), dialogues(200)).save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names, "bos_token": "[CLS]", "eos_token": "[SEP]"})
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_folder(), local_files_only=True)


@functools.cache
def checkpoint() -> Path:
    """A decoder that has read some of the text, so that what it says differs from prompt to prompt."""
    folder, mine = root() / "talking-checkpoint", tokenizer()
    torch.manual_seed(0)
    model = trained_decoder(new_decoder(SHAPE, mine, len(mine), LONGEST))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts, collate = dialogues(400), CollateDocuments(mine.pad_token_id, mine.cls_token_id)
    for step in range(60):
        ids = mine(texts[step * 6 : step * 6 + 6], max_length=LONGEST, padding="max_length", truncation=True)["input_ids"]
        model(**collate([numpy.asarray(one) for one in ids])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def encoder_decoder() -> PreTrainedModel:
    """An encoder-decoder of random weights, with which the tokenizer goes."""
    mine = tokenizer()
    return new_encoder_decoder(EncoderDecoderShape(hidden=32, layers=2, heads=2, intermediate=48), mine, len(mine)).eval()


@functools.cache
def reading_checkpoint() -> Path:
    """One whose answers differ from source to source: it has learnt some."""
    folder, mine = root() / "reading-checkpoint", tokenizer()
    torch.manual_seed(0)
    model = trained_encoder_decoder(encoder_decoder()).train()
    optimizer, collate = torch.optim.AdamW(model.parameters(), lr=3e-3), CollateExamples(mine.pad_token_id, mine.cls_token_id)
    answers = [answer for one in encoded(dialogues(400)) for answer in answers_of(one)] * 10
    for step in range(480):
        model(**collate([Example.of([answer]) for answer in answers[step * 12 : step * 12 + 12]])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def learn(model: PreTrainedModel | Any, batch: Mapping[str, Any], rate: float) -> None:
    """Forty updates on one batch, of what is trained; the loss falls."""
    optimizer, losses = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate), []
    for _ in range(40):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def encoded(texts: list[str]) -> list[Any]:
    return Chat(tokenizer()).encode([messages(text) for text in texts])


def said(model: PreTrainedModel | Any, prompts: list[str], tokens: int = 12) -> list[list[int]]:
    """Greedy continuations of user turns, in token ids."""
    chat = Chat(tokenizer())
    asked = [one.ids for one in chat.encode([messages(prompt) for prompt in prompts], prompt=True)]
    width = max(map(len, asked))
    ids, mask = torch.zeros(len(asked), width, dtype=torch.int64), torch.zeros(len(asked), width, dtype=torch.int64)
    for row, one in enumerate(asked):  # padded on the left, so that all answers begin together
        ids[row, width - len(one) :], mask[row, width - len(one) :] = torch.tensor(one), 1
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=chat.end, pad_token_id=0)
    found: list[list[int]] = out[:, width:].tolist()
    return found
