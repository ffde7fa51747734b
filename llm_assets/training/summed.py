"""The classifier that sums an encoder's scores and those of token n-grams, in one graph from token ids to labels."""

# mypy: disable-error-code="no-untyped-call"
# (transformers' base classes have no types where a class is made)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.logging import disable_progress_bar

from llm_assets.store.progress import Progress, silent
from llm_assets.training.batches import CollateTexts, encode_texts
from llm_assets.training.grams import MULTIPLIERS, Grams, fit
from llm_assets.training.heads import Problem, parts
from llm_assets.training.job import Classification

if TYPE_CHECKING:
    import numpy

SCALES = (1e-3, 10.0)  # between which encoder and n-grams are weighed


class Labelled(NamedTuple):
    """Texts and their labels as the tables have them."""

    texts: Sequence[str]
    labels: Sequence[str]


@strict
class SummedConfig(PreTrainedConfig):
    """An encoder's own configuration, and the size of the n-grams' sketch."""

    model_type = "llm_assets_summed"
    encoder_settings: dict[str, Any] | None = None
    encoder_scale: float | int = 1.0  # what the encoder's scores are multiplied by
    longest: int = 3  # tokens of the longest n-grams
    slots: int = 524_287
    columns: int = 1  # scores that the n-grams give

    @property
    def max_position_embeddings(self) -> int | None:
        """As the encoder has it."""
        return (self.encoder_settings or {}).get("max_position_embeddings")


class SummedForSequenceClassification(PreTrainedModel):
    """An encoder's scores plus those that a sketch of token n-grams gives (wide and deep: Cheng et al. 2016, https://arxiv.org/abs/1606.07792)."""

    config_class = SummedConfig

    def __init__(self, config: SummedConfig) -> None:
        super().__init__(config)
        settings = dict(config.encoder_settings or {})
        self.encoder = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**settings))
        self.grams = nn.Embedding(2 * config.slots, config.columns)
        self.bias = nn.Parameter(torch.zeros(config.columns))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's, by transformers' name for them."""
        found: nn.Module = self.encoder.get_input_embeddings()
        return found

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Scores [texts, labels] of int64 [texts, length]."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask).logits
        return SequenceClassifierOutput(logits=self.config.encoder_scale * encoded + self.gram_scores(input_ids, attention_mask))

    def gram_scores(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """What the n-grams say alone, [texts, labels]; of two labels, one column of weights tells the second from the first."""
        first, second = self._looked_up(input_ids, attention_mask)
        agreed = torch.minimum(first, second).clamp(min=0) + torch.maximum(first, second).clamp(max=0)
        weights = agreed * agreed.abs()
        number = (weights != 0).sum(1).clamp(min=1)
        said = weights.sum(1) / number.sqrt() + self.bias
        return torch.cat((-said / 2, said / 2), 1) if self.config.columns == 1 else said

    def _looked_up(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What either row of the sketch holds for each n-gram, [texts, n-grams, columns]; nothing for those that reach into the padding."""
        length = input_ids.shape[1]
        tokens = functional.pad((input_ids + 1) * attention_mask, (0, self.config.longest - 1))
        steps = [tokens[:, step : step + length] for step in range(self.config.longest)]
        whole = torch.cat([(step > 0)[:, :, None] for step in steps], 1)
        rows = []
        for row, multipliers in enumerate(MULTIPLIERS):
            sums, total = [], torch.zeros_like(input_ids)
            for step, multiplier in zip(steps, multipliers, strict=False):
                total = total + step * multiplier
                sums.append(total)
            rows.append(self.grams(torch.cat(sums, 1) % self.config.slots + row * self.config.slots) * whole)
        return rows[0], rows[1]


def add_grams(
    directory: Path, settings: Grams, objective: Classification, learnt: Labelled, held_out: Labelled, progress: Progress = silent
) -> dict[str, float]:
    """Put the sum in place of the classifier in a folder, its tokenizer beside it; returns what its scores and the n-grams' are multiplied by.

    The n-grams are fitted on the texts that the classifier has ``learnt``. The two factors are those for which the loss of the texts
    ``held_out`` is least (stacking, Wolpert 1992; one factor alone would be the temperature of Guo et al. 2017).
    """
    disable_progress_bar()  # the link has its own
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    known, targets = _encoded(tokenizer, objective, learnt)
    sketch = fit(known, targets[:, 1:] if _tells_two_apart(objective) else targets, settings, progress)
    encoder = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True, use_safetensors=True)
    kept = {name: getattr(encoder.config, name) for name in ("id2label", "label2id", "problem_type")}
    sizes = {"longest": settings.longest, "slots": settings.slots, "columns": len(sketch.bias), "pad_token_id": tokenizer.pad_token_id}
    summed = SummedForSequenceClassification(SummedConfig(encoder_settings=encoder.config.to_dict(), **sizes, **kept)).eval()
    summed.encoder = encoder.eval()
    with torch.no_grad():
        summed.grams.weight.copy_(torch.from_numpy(sketch.weights))
        summed.bias.copy_(torch.from_numpy(sketch.bias))
    asked, wanted = _encoded(tokenizer, objective, held_out)
    factors = weighed(objective.problem, *_scores(summed, asked, tokenizer.pad_token_id), torch.from_numpy(wanted))
    summed.config.encoder_scale = factors["encoder"]
    with torch.no_grad():
        summed.grams.weight.mul_(factors["grams"] ** 0.5)
        summed.bias.mul_(factors["grams"])
    # Not save_pretrained, which imports DeepSpeed to see whether the model is one of its own.
    save_file({name: weight.contiguous() for name, weight in summed.state_dict().items()}, directory / "model.safetensors", {"format": "pt"})
    summed.config.architectures = [type(summed).__name__]
    summed.config.save_pretrained(directory)
    return factors


def weighed(problem: Problem, encoded: torch.Tensor, said: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """The factors of ``encoded`` and ``said``, [texts, labels] both, for which the head's loss is least; ``targets`` is bool of that shape."""
    from scipy.optimize import minimize

    def loss(factors: Any) -> float:
        scores = factors[0] * encoded + factors[1] * said
        if problem == "single_label":
            return float(functional.cross_entropy(scores, targets.double()))
        return float(functional.binary_cross_entropy_with_logits(scores, targets.double()))

    found = minimize(loss, (1.0, 1.0), method="L-BFGS-B", bounds=(SCALES, SCALES))
    return {"encoder": float(found.x[0]), "grams": float(found.x[1])}


def _tells_two_apart(objective: Classification) -> bool:
    return objective.problem == "single_label" and len(objective.labels) == 2


def _encoded(tokenizer: PreTrainedTokenizerFast, objective: Classification, given: Labelled) -> tuple[list[list[int]], numpy.ndarray]:
    """The token ids of each text or window, and which labels it has, bool [texts, labels]."""
    import numpy

    ids, rows = encode_texts(tokenizer, given.texts, objective.max_length, objective.overlap)
    has = numpy.array([[name in parts(label, objective.problem) for name in objective.labels] for label in given.labels])
    return ids, has[rows]


def _scores(model: SummedForSequenceClassification, tokens: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's scores and the n-grams', [texts, labels] both."""
    collate = CollateTexts(padding)
    encoded, said = [], []
    for ids in tokens:  # one by one, some hundred texts: padding costs more than batches save
        batch = collate([{"input_ids": ids, "labels": 0}])
        given = batch["input_ids"], batch["attention_mask"]
        with torch.inference_mode():
            encoded.append(model.encoder(input_ids=given[0], attention_mask=given[1]).logits[0])
            said.append(model.gram_scores(*given)[0])
    return torch.stack(encoded).double(), torch.stack(said).double()
