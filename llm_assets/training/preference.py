"""The worker's part for preferences: TRL's losses of pairs of replies, in this project's training loop.

Of TRL (https://github.com/huggingface/trl) come the losses of DPO, KTO and ORPO, the collators that lay prompt and replies side by side, and the
likelihoods under the model that training began from, computed once before the first update and kept beside the job, so that no second
model stands in memory. The order of samples, checkpoints, reports and the kept evaluation are ``Worker``'s, which comes first in each class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from datasets import Dataset, disable_progress_bars
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from llm_assets.training.arguments import training_arguments
from llm_assets.training.batches import sample_order
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.causal import decoder
from llm_assets.training.job import Method, Preference, TrainingJob
from llm_assets.training.trainer import Worker


class GivenOrder(Sampler[int]):
    """The places of ``order``, one after another."""

    def __init__(self, order: numpy.ndarray) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())


class Preferring(Worker):
    """What the three methods share: encoded examples in a given order, and nothing that TRL would tell anybody or write beside the weights."""

    loss_is_scaled_for_ga: Any = False  # a batch's loss is a mean over its examples

    def __init__(self, *, order: numpy.ndarray, **settings: Any) -> None:
        super().__init__(**settings)
        self.train_dataset.order = order  # type: ignore[union-attr]  # where ``Worker.rows`` looks

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # ``training/pairs.py`` did

    def tokenize_row(self, row: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """Nothing: the row is in tokens already."""
        return {}

    def _get_train_sampler(self, train_dataset: Any = None) -> GivenOrder:  # type: ignore[override]  # a sampler like the other
        return GivenOrder(self.train_dataset.order)  # type: ignore[union-attr]

    def _send_telemetry(self) -> None:
        return

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the chain writes its own."""


class DpoWorker(Preferring, DPOTrainer):
    """-log sigmoid(beta * (log p/p0 of the chosen reply - log p/p0 of the rejected one)), p0 the model it began as."""


class KtoWorker(Preferring, KTOTrainer):
    """1 - sigmoid of the distance from the mean drift, towards a desirable reply and away from an undesirable one."""


class OrpoWorker(Preferring, ORPOTrainer):
    """Cross-entropy of prompt and chosen reply, and beta * -log sigmoid(log of the ratio of the two replies' odds)."""


METHODS: dict[Method, tuple[type[Preferring], type[TrainingArguments], dict[str, Any]]] = {
    "dpo": (DpoWorker, DPOConfig, {"precompute_ref_log_probs": True}),
    "kto": (KtoWorker, KTOConfig, {"precompute_ref_log_probs": True}),
    "orpo": (OrpoWorker, ORPOConfig, {}),
}


def preference_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over the examples that ``training/pairs.py`` encoded, and how many they are."""
    objective = job.objective
    assert isinstance(objective, Preference)
    worker, kind, more = METHODS[objective.method]
    train, held_out = (read(path, job.scratch) for path in (objective.train, objective.evaluation))
    batch = job.micro_batch * job.accumulation * arguments.world_size
    settings = {"beta": objective.beta, "max_length": objective.max_length, "gradient_checkpointing": job.activation_checkpointing, **more}
    made = worker(
        job=job,
        best=BestEvaluation(job.scratch),
        padding=tokenizer.pad_token_id,
        order=sample_order(len(train), job.steps, batch, job.seed),
        model=decoder(job, tokenizer, len(tokenizer), objective.max_length),
        args=training_arguments(job, kind, **settings),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
    )
    return made, {"training_examples": len(train), "validation_examples": len(held_out)}


def read(path: Path, scratch: Path) -> Dataset:
    """Encoded examples as a file in ``scratch``, beside which TRL keeps what the beginning's model made of them, for every process.

    A launch that goes on finds it there: its name is a hash of the examples' place and time, and of the weights, and it is renamed into
    place when it is whole.
    """
    disable_progress_bars()
    found: Dataset = Dataset.from_parquet(str(path), cache_dir=str(scratch / "datasets"))
    return found
