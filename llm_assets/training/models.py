"""Building the models that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from llm_assets.training import encoders
from llm_assets.training.architectures import ARCHITECTURES
from llm_assets.training.heads import PROBLEM_TYPES
from llm_assets.training.initialisation import read_embeddings
from llm_assets.training.job import Classification, Masked, ModelShape, TrainingJob
from llm_assets.training.next_sentence import MaskedAndNext


class VocabularyError(ValueError):
    """A checkpoint has fewer embeddings than the tokenizer has tokens."""


def masked_model(job: TrainingJob, tokenizer: PreTrainedTokenizerFast, vocabulary: int, context: int) -> PreTrainedModel:
    """A masked-language model: of the job's shape with random weights, its token embeddings perhaps given, or continued from a folder.

    With the next-sentence objective it has a second head, and is a ModernBERT. Raises ``VocabularyError`` where the folder's
    embeddings do not cover the vocabulary.
    """
    objective = job.objective
    second_head = isinstance(objective, Masked) and objective.next_sentence
    if job.start_from is not None:
        kind = MaskedAndNext if second_head else AutoModelForMaskedLM
        model: PreTrainedModel = kind.from_pretrained(job.start_from, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        if isinstance(model, MaskedAndNext):
            model.next_head.reset_parameters()  # no checkpoint holds it
        if model.config.vocab_size < vocabulary:
            raise VocabularyError(
                f"{job.start_from} knows {model.config.vocab_size} tokens, the tokenizer makes {vocabulary}: "
                "name that checkpoint's own tokenizer under tokenizer.existing"
            )
        return model
    assert isinstance(job.shape, ModelShape)
    fresh = (MaskedAndNext if second_head else ModernBertForMaskedLM)(modernbert_config(job.shape, tokenizer, vocabulary, context))
    if job.embeddings is not None:
        weight: Any = fresh.get_input_embeddings().weight
        with torch.no_grad():
            weight.copy_(torch.from_numpy(read_embeddings(job.embeddings)))
    return fresh


def modernbert_config(shape: ModelShape, tokenizer: PreTrainedTokenizerFast, vocabulary: int, context: int) -> ModernBertConfig:
    """A ModernBERT of ``shape``; its masked head computes logits at masked positions only, 1.6 times the tokens a second."""
    return ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        initializer_range=shape.initializer_range,
        max_position_embeddings=max(512, context),
        sparse_prediction=True,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )


def attention_windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """How many tokens each kind of attention layer looks to either side, None for all; nothing where a model has one kind."""
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    return {kind: config.sliding_window if kind == "sliding_attention" else None for kind in kinds}


def classifier(objective: Classification, start_from: Path | None, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A sequence classifier with a new last layer: over a checkpoint's encoder, or of an architecture with random weights."""
    head: dict[str, Any] = {
        "id2label": dict(enumerate(objective.labels)),
        "label2id": {label: index for index, label in enumerate(objective.labels)},
        "problem_type": PROBLEM_TYPES[objective.problem],
    }
    if objective.architecture is not None:
        config, model = ARCHITECTURES[objective.architecture]
        return model(config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **head))
    assert start_from is not None
    settings = AutoConfig.from_pretrained(start_from, local_files_only=True, **head)
    settings.update(encoders.settings(settings.model_type, objective.dropout))
    found: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        start_from, config=settings, local_files_only=True, use_safetensors=True
    )  # safetensors: never a .bin, which is unpickled
    return found
