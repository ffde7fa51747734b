"""Classifiers that transformers does not ship, known to its Auto classes once this module is imported.

Each is a ``PreTrainedModel`` with a ``PreTrainedConfig`` of its own, so that ``save_pretrained``, ``from_pretrained``, the training worker,
the reference scorer and the ONNX export treat it like any encoder. To add one: a config with a ``model_type``, a model whose ``forward``
takes ``input_ids`` and ``attention_mask`` (int64 [texts, length], padding on the right) and gives ``logits`` [texts, labels], and a line
in ``ARCHITECTURES``. What stands in the padding must not change an answer: a test asks it of every one.
"""

# mypy: disable-error-code="no-untyped-call"
# (transformers' base classes have no types where a class is made)

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from llm_assets.training.summed import SummedConfig, SummedForSequenceClassification


@strict
class BaselineConfig(PreTrainedConfig):
    """What the trained baselines share: embeddings of their own, learned from nothing but the labelled examples."""

    vocab_size: int = 8192
    embedding_size: int = 128  # Kim 2014 and Conneau et al. 2017 take 300, pretrained elsewhere
    pad_token_id: int | None = 0
    classifier_dropout: float | int = 0.5  # Kim 2014, section 3.1
    initializer_range: float = 0.1  # standard deviation; embeddings at 0.02 would take most of a short training to grow


@strict
class Conv1dConfig(BaselineConfig):
    """A convolution over tokens."""

    model_type = "llm_assets_conv1d"
    channels: int = 100  # of each kernel, as in Kim 2014
    kernels: tuple[int, ...] | list[int] = (3, 4, 5)  # tokens each looks at, as in Kim 2014


@strict
class RecurrentConfig(BaselineConfig):
    """A recurrence over tokens, from either end."""

    hidden_size: int = 128  # of each direction


@strict
class LstmConfig(RecurrentConfig):
    """Long short-term memory."""

    model_type = "llm_assets_lstm"


@strict
class GruConfig(RecurrentConfig):
    """Gated recurrent units."""

    model_type = "llm_assets_gru"


class Baseline(PreTrainedModel):
    """Embeddings, then ``features`` of each token, the largest value of each over the text, dropout, and the labels' scores."""

    config_class = BaselineConfig

    def __init__(self, config: Any, width: int) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(width, config.num_labels)

    def features(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features [texts, length, width] of embeddings [texts, length, embedding_size]; ``mask`` is bool [texts, length]."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings, by transformers' name for them."""
        return self.embeddings

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Scores [texts, labels]."""
        mask = attention_mask.bool()
        features = self.features(self.embeddings(input_ids), mask)
        largest = features.masked_fill(~mask[:, :, None], torch.finfo(features.dtype).min).amax(1)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(largest)))


class Conv1dForSequenceClassification(Baseline):
    """Convolutions of several widths, a rectifier, and the largest value over time (Kim 2014, https://arxiv.org/abs/1408.5882)."""

    config_class = Conv1dConfig

    def __init__(self, config: Conv1dConfig) -> None:
        super().__init__(config, config.channels * len(config.kernels))
        self.convolutions = nn.ModuleList(nn.Conv1d(config.embedding_size, config.channels, kernel) for kernel in config.kernels)
        self.post_init()

    def features(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Each kernel centred at each token; past the ends of the text stand zeros, be there padding or none."""
        embedded = (embedded * mask[:, :, None]).transpose(1, 2)
        found = []
        for kernel, convolution in zip(self.config.kernels, self.convolutions, strict=True):
            found.append(functional.relu(convolution(functional.pad(embedded, ((kernel - 1) // 2, kernel // 2)))))
        return torch.cat(found, 1).transpose(1, 2)


class RecurrentForSequenceClassification(Baseline):
    """A recurrence from the left and one from the right, and the largest value over time (Conneau et al. 2017, https://arxiv.org/abs/1705.02364).

    The one from the right runs over each text turned around within its own length, so that padding comes last for both and
    reaches no state that counts: what packed sequences do, in operations that an ONNX graph has.
    """

    config_class = RecurrentConfig
    recurrence: type[nn.LSTM] | type[nn.GRU]

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config, 2 * config.hidden_size)
        self.from_left = self.recurrence(config.embedding_size, config.hidden_size, batch_first=True)
        self.from_right = self.recurrence(config.embedding_size, config.hidden_size, batch_first=True)
        self.post_init()

    def features(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The states of both directions at each token."""
        place = torch.arange(mask.shape[1], device=mask.device)[None, :]
        opposite = torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)
        left, _ = self.from_left(embedded)
        right, _ = self.from_right(_taken(embedded, opposite))
        return torch.cat((left, _taken(right, opposite)), 2)


class LstmForSequenceClassification(RecurrentForSequenceClassification):
    """Long short-term memory (Hochreiter & Schmidhuber 1997)."""

    config_class = LstmConfig
    recurrence = nn.LSTM


class GruForSequenceClassification(RecurrentForSequenceClassification):
    """Gated recurrent units (Cho et al. 2014, https://arxiv.org/abs/1406.1078)."""

    config_class = GruConfig
    recurrence = nn.GRU


def _taken(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """``values`` [texts, length, width] in the order of ``place`` [texts, length]."""
    return values.gather(1, place[:, :, None].expand(-1, -1, values.shape[2]))


ARCHITECTURES: dict[str, tuple[type[BaselineConfig], type[PreTrainedModel]]] = {
    "conv1d": (Conv1dConfig, Conv1dForSequenceClassification),
    "lstm": (LstmConfig, LstmForSequenceClassification),
    "gru": (GruConfig, GruForSequenceClassification),
}

EVERY: tuple[tuple[type[PreTrainedConfig], type[PreTrainedModel]], ...] = (*ARCHITECTURES.values(), (SummedConfig, SummedForSequenceClassification))
for _config, _model in EVERY:
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForSequenceClassification.register(_config, _model, exist_ok=True)
