"""Which encoders a classifier is built upon: those whose ONNX graph a test compares with torch, and what each calls its dropout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

HIDDEN = ("hidden_dropout_prob", "attention_probs_dropout_prob")
DROPOUTS = {  # by transformers' model_type
    "modernbert": ("embedding_dropout", "mlp_dropout", "classifier_dropout"),
    "bert": (*HIDDEN, "classifier_dropout"),
    "roberta": (*HIDDEN, "classifier_dropout"),
    "xlm-roberta": (*HIDDEN, "classifier_dropout"),
    "deberta": (*HIDDEN, "pooler_dropout", "cls_dropout"),
    "deberta-v2": (*HIDDEN, "pooler_dropout", "cls_dropout"),  # version 3 too
    "electra": (*HIDDEN, "classifier_dropout"),
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
}
POOLING = {"modernbert": {"classifier_pooling": "mean"}}  # the others have one way each: a vector at the opening token
OFFSET = ("roberta", "xlm-roberta")  # position 0 of a text stands after that of the padding token


class EncoderError(ValueError):
    """A checkpoint cannot become a classifier that is served; the message says why and what to do."""


def settings(model_type: str, dropout: float) -> dict[str, Any]:
    """Dropout and pooling by the names that this kind of encoder has for them."""
    return {**dict.fromkeys(DROPOUTS[model_type], dropout), **POOLING.get(model_type, {})}


def longest_text(config: PreTrainedConfig) -> int | None:
    """How many tokens a text may have, those that open and close it included; None where the model has no positions."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    return int(positions) - (int(config.pad_token_id) + 1 if config.model_type in OFFSET else 0)


def refuse_unfit(folder: Path, vocabulary: int, padding: int, max_length: int) -> None:
    """Raise ``EncoderError`` unless a folder's configuration makes a classifier over that tokenizer and length.

    ``vocabulary`` is the tokenizer's largest token id plus 1, ``padding`` its padding token's id. Weights are not read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise EncoderError(f"{folder}/config.json names no architecture that transformers has ({str(error).splitlines()[0]})") from error
    reason = _unfit(config) or _mismatch(config, vocabulary, padding, max_length)
    if reason:
        raise EncoderError(f"{folder} ({config.model_type}): {reason}")


def _unfit(config: PreTrainedConfig) -> str | None:
    """Why this architecture is not finetuned here, or None."""
    from transformers.models.auto import modeling_auto as known

    kind, others = config.model_type, f"take an encoder of one of these: {', '.join(DROPOUTS)}"
    if kind not in known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return f"transformers has no sequence-classification head for it; {others}"
    if getattr(config, "is_encoder_decoder", False):
        return f"it writes text from text, which this head does not use; {others}"
    if getattr(config, "is_decoder", False) or kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return f"it is a decoder, whose tokens do not see what follows them; {others}"
    if kind not in DROPOUTS:
        return f"no test shows that its ONNX graph answers like torch; {others}"
    if getattr(config, "type_vocab_size", None) == 0 and kind not in ("deberta", "deberta-v2"):
        return "its type_vocab_size is 0, but its embeddings look up token type 0 for every token; set it to 1"
    return None


def _mismatch(config: PreTrainedConfig, vocabulary: int, padding: int, max_length: int) -> str | None:
    """What tokenizer or length the model does not go with, or None."""
    remedy = "name that checkpoint's own tokenizer under tokenizer.existing"
    if config.vocab_size < vocabulary:
        return f"it knows {config.vocab_size} tokens, the tokenizer makes {vocabulary}: {remedy}"
    if config.pad_token_id is not None and config.pad_token_id != padding:
        return f"its padding token is {config.pad_token_id}, the tokenizer's is {padding}: {remedy}"
    longest = longest_text(config)
    if longest is not None and max_length > longest:
        return f"it has positions for {longest} tokens: lower finetuned_model.max_length, which is {max_length}"
    return None
