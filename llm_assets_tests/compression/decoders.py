"""Decoders of random weights in Hugging Face's form, with a byte-level tokenizer trained on a few lines; made without a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from llm_assets.corpus.vocabulary import QWEN2_PIECES

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|im_start|>", "<|im_end|>"]
ENDS = [SPECIAL.index(token) for token in ("[PAD]", "[SEP]", "<|im_end|>")]  # llama.cpp ends an answer at [PAD] too, which trained models never say
MASKS = ["<|phone|>", "<|email|>"]
TEMPLATE = (
    "[CLS]{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = ["我非常喜欢这个产品，房间很小，隔音也差。", "The weather is fine today, isn't it?", "怎么退货？请提供订单号 12345。", "Thanks! \n\nBye."]


def tokenizer(entries: int = 400) -> Tokenizer:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PIECES), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=entries, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(LINES * 4, trainer)
    made.add_tokens([AddedToken(mask, normalized=False) for mask in MASKS])
    return made


def write_tokenizer(folder: Path, entries: int = 400) -> Tokenizer:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer(entries)
    made.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return made


def write_decoder(folder: Path, kind: str = "llama", seed: int = 0, spread: float = 0.2, entries: int = 400, **settings: Any) -> Path:
    """A decoder whose weights are drawn with the deviation ``spread``, large so that its answers are no mere ties."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made = write_tokenizer(folder, entries)
    ids = {"bos_token_id": made.token_to_id("[CLS]"), "eos_token_id": [made.token_to_id("[SEP]"), made.token_to_id("<|im_end|>")], "pad_token_id": 0}
    shape = {
        "vocab_size": made.get_vocab_size(), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": spread, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **ids, **settings}))
    model.save_pretrained(folder)
    return folder


def write_lora(base: Path, folder: Path, seed: int = 0, spread: float = 0.15, **settings: Any) -> Path:
    """PEFT's folder of a LoRA beside the decoder in ``base``, drawn with the deviation ``spread``, large enough to change every answer."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from llm_assets.training.adapters import Adapter, configuration

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.name_or_path = "base"
    made = get_peft_model(model, configuration(Adapter.model_validate({"kind": "lora", "rank": 4, "alpha": 8, **settings}), steps=1))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.normal_(std=spread)
    made.save_pretrained(folder, save_embedding_layers=False)
    return folder
