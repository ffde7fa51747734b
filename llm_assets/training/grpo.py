"""The worker's part for rewards: several replies to a prompt are drawn, and those that earned more than their group's mean become likelier.

GRPO (Shao et al. 2024, DeepSeekMath, section 4.1) with one update for each set of replies (its µ is 1), so that no reply is older than the
weights and nothing is clipped. Of Liu et al. 2025 (Dr. GRPO, section 3.2) come the advantage without the group's standard deviation and one
divisor for replies of any length: with GRPO's own a long bad reply is punished less a token than a short one. The distance from the model that
training began with is the paper's: an estimate of each token's, differentiated at the replies as drawn.

TRL's trainer is not used: it draws from one stream of random numbers that a checkpoint does not bring back to its place, makes its
own order of samples, and words prompts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.trainer_utils import EvalLoopOutput

from llm_assets.training.batches import sample_order
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.causal import decoder
from llm_assets.training.job import Rewarded, TrainingJob
from llm_assets.training.rewards import REWARD, rewarded
from llm_assets.training.rollouts import Ids, Rollouts, left_padded, numbers
from llm_assets.training.trainer import Worker

TRAINING, VALIDATION, MEASURED = range(3)  # what replies are drawn for: each has numbers of its own, so that no choice is judged by its own luck
Batch = dict[str, torch.Tensor]
Turns = list[dict[str, str]]


def advantages(rewards: torch.Tensor, group: int) -> torch.Tensor:
    """Of each reply [replies] its reward less its group's mean; the ``group`` replies to one prompt stand side by side."""
    groups = rewards.view(-1, group)
    return (groups - groups.mean(1, keepdim=True)).flatten()


def divergence(log_p: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """An estimate of the divergence of each token that is never below 0, in nats: p0/p - log(p0/p) - 1 (Shao et al. 2024, equation 4)."""
    ratio = before - log_p
    return ratio.exp() - ratio - 1


class Places(Dataset[int]):
    """The places of ``order`` themselves; the prompts that they stand for."""

    def __init__(self, turns: Sequence[Turns], ids: Sequence[Ids], order: numpy.ndarray) -> None:
        self.turns = turns
        self.ids = ids
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        return position


class PolicyGradient(Trainer):
    """The loss alone; what is drawn, kept and reported is ``GrpoWorker``'s, whose ``Worker`` looks whether it is a number."""

    objective: Rewarded
    reference: PreTrainedModel  # as training began
    drift: float  # nats of divergence of the replies since the last log

    def compute_loss(self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None) -> torch.Tensor:
        """A scalar, whose gradient is that of the mean of beta * divergence - reward, over the tokens a reply may have."""
        answered = inputs["answered"]
        log_p = log_likelihoods(model, inputs)
        with torch.no_grad():
            before = log_likelihoods(self.reference, inputs)
        away = divergence(log_p, before)
        self.drift += float((away.detach() * answered).sum())
        loss = self.objective.beta * away - inputs["advantages"][:, None] * log_p
        return (loss * answered).sum() / (len(answered) * self.objective.answer_tokens)


def log_likelihoods(model: Any, inputs: Batch) -> torch.Tensor:
    """log p of each token of the replies, [replies, tokens of the longest] float32; what fills up has one too."""
    ids, mask, width = inputs["input_ids"], inputs["attention_mask"], inputs["answered"].shape[1]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scores = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=width + 1).logits[:, :-1]
    found: torch.Tensor = scores.float().log_softmax(-1).gather(2, ids[:, -width:, None]).squeeze(2)
    return found


class GrpoWorker(Worker, PolicyGradient):
    """Draws the replies of an update, rewards them, and keeps the weights whose replies to the validation prompts earn most."""

    loss_is_scaled_for_ga: Any = False  # a batch's loss is a mean over its replies

    def __init__(self, *, objective: Rewarded, rollouts: Rollouts, reference: PreTrainedModel, **settings: Any) -> None:
        super().__init__(**settings)
        self.objective = objective
        self.rollouts = rollouts
        self.reference = reference
        self.drift = 0.0
        self.earned: list[dict[str, float]] = []  # by the replies since the last log
        self.said = 0  # tokens of those replies

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Batch], None]:
        """The batches of an update, with replies drawn for all of them together."""
        places = [batch["places"].tolist() for batch in super().get_batch_samples(epoch_iterator, num_batches, device)[0]]
        replies = iter(self._drawn(self.train_dataset, [place for batch in places for place in batch], TRAINING))  # type: ignore[arg-type]
        return [self._batch(batch, [next(replies) for _ in batch]) for batch in places], None

    def _drawn(self, dataset: Places, places: Sequence[int], purpose: int) -> list[Ids]:
        """A reply for each place, as many at once as an evaluation has sequences."""
        found: list[Ids] = []
        model = self.accelerator.unwrap_model(self.model)
        for start in range(0, len(places), self.args.per_device_eval_batch_size):
            chosen = places[start : start + self.args.per_device_eval_batch_size]
            prompts = [dataset.ids[dataset.order[place]] for place in chosen]
            found += self.rollouts.draw(model, prompts, numbers(self.job.seed, purpose, chosen, self.objective.answer_tokens))
        return found

    def _rewarded(self, dataset: Places, places: Sequence[int], replies: Sequence[Ids]) -> list[dict[str, float]]:
        turns = [dataset.turns[dataset.order[place]] for place in places]
        return [rewarded(self.objective.rewards, prompt, self.rollouts.reply(reply)) for prompt, reply in zip(turns, replies, strict=True)]

    def _batch(self, places: Sequence[int], replies: Sequence[Ids]) -> Batch:
        """``input_ids``, ``attention_mask`` int64 [replies, longest], ``answered`` bool [replies, longest one], ``advantages`` float32 [replies]."""
        dataset = self.train_dataset
        assert isinstance(dataset, Places)
        earned = self._rewarded(dataset, places, replies)
        self.earned += earned
        self.said += sum(map(len, replies))
        width, padding = max(map(len, replies)), self.rollouts.padding
        ids, mask = left_padded([dataset.ids[dataset.order[place]] for place in places], padding)
        answered = torch.arange(width) < torch.tensor([len(reply) for reply in replies])[:, None]
        said = torch.tensor([reply + [padding] * (width - len(reply)) for reply in replies])
        return {
            "input_ids": torch.cat([ids, said], 1),
            "attention_mask": torch.cat([mask, answered.long()], 1),
            "answered": answered,
            "advantages": advantages(torch.tensor([one[REWARD] for one in earned]), self.objective.group),
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the replies since the last log earned, how long they were and how far from the model it began as."""
        if "loss" in logs:
            sums = self._summed([sum(one[REWARD] for one in self.earned), self.drift, self.said, len(self.earned)])
            logs |= {name: value / max(1.0, sums[-1]) for name, value in zip((REWARD, "divergence", "reply_tokens"), sums, strict=False)}
            self.earned, self.drift, self.said = [], 0.0, 0
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean reward of one reply to each prompt, as ``score``; the loss is that taken negative."""
        dataset, size, world = dataloader.dataset, self.args.per_device_eval_batch_size, self.args.world_size
        starts, total = range(0, len(dataset), size), 0.0
        for first in range(0, len(starts), world):  # as many rounds on every rank, since ZeRO-3 gathers weights in each
            number = first + self.args.process_index
            start = starts[min(number, len(starts) - 1)]
            places = range(start, min(start + size, len(dataset)))
            replies = self._drawn(dataset, places, VALIDATION)
            if number < len(starts):
                total += sum(one[REWARD] for one in self._rewarded(dataset, places, replies))
        mean = self._summed([total])[0] / len(dataset)
        found = {"loss": -mean, "score": mean, REWARD: mean}
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_{name}": value for name, value in found.items()}, len(dataset))  # type: ignore[arg-type]

    def _summed(self, values: Sequence[float]) -> list[float]:
        """Over all processes."""
        sums = torch.tensor(values, dtype=torch.float64, device=self.args.device)
        torch.distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found


def reward_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over prompts, and how many they are; beside the model in training stands the one that it began as."""
    objective = job.objective
    assert isinstance(objective, Rewarded)
    rollouts = Rollouts(tokenizer, objective.answer_tokens, objective.max_length)
    train, held_out = (_turns(path) for path in (objective.train, objective.evaluation))
    batch = job.micro_batch * job.accumulation * arguments.world_size
    order = numpy.repeat(sample_order(len(train), job.steps, batch // objective.group, job.seed), objective.group)
    worker = GrpoWorker(
        job=job,
        objective=objective,
        rollouts=rollouts,
        reference=as_it_began(job, arguments, tokenizer, objective.max_length),
        best=BestEvaluation(job.scratch),
        padding=rollouts.padding,
        model=decoder(job, tokenizer, len(tokenizer), objective.max_length),
        args=arguments,
        train_dataset=Places(train, rollouts.encode(train), order),
        eval_dataset=Places(held_out, rollouts.encode(held_out), numpy.arange(len(held_out))),
        data_collator=_places,
    )
    return worker, {"training_prompts": len(train), "validation_prompts": len(held_out)}


def as_it_began(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast, longest: int) -> PreTrainedModel:
    """The model that training begins with, whole on this process's device: ZeRO-3 would spread it over the processes, and gather it for no one."""
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    try:
        model: Any = decoder(job, tokenizer, len(tokenizer), longest)
    finally:
        set_hf_deepspeed_config(arguments.hf_deepspeed_config)  # type: ignore[no-untyped-call]
    return model.eval().requires_grad_(False).to(arguments.device)  # type: ignore[no-any-return]


def _places(items: Sequence[int]) -> Batch:
    return {"places": torch.tensor(items)}


def _turns(path: Path) -> list[Turns]:
    import pyarrow.parquet

    found: list[Turns] = pyarrow.parquet.read_table(path, columns=["messages"])["messages"].to_pylist()
    return found
