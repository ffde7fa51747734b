"""The worker's part for classification: texts with labels, the head's loss, and the evaluation that is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from transformers import EvalPrediction, PreTrainedTokenizerFast, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_assets.training import heads
from llm_assets.training.batches import CollateTexts, Encoded, Texts, padding_share, read_texts, sample_order
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.job import Classification, TrainingJob
from llm_assets.training.models import classifier
from llm_assets.training.trainer import Worker


def classification_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker for sequence classification, and what is known of its batches before the first."""
    objective = job.objective
    assert isinstance(objective, Classification)
    cache = job.scratch / "datasets"
    train = read_texts(objective.train, objective, tokenizer, None, cache)
    validation = read_texts(objective.evaluation, objective, tokenizer, "validation", cache)
    weighted = objective.overlap is not None
    batch = job.micro_batch * job.accumulation * arguments.world_size
    samples = sample_order(len(train.rows), job.steps, batch, job.seed, train.lengths)
    worker = Worker(
        job=job,
        best=BestEvaluation(job.scratch),
        padding=tokenizer.pad_token_id,
        model=classifier(objective, job.start_from, tokenizer),
        args=arguments,
        train_dataset=Texts(train, samples, weighted),
        eval_dataset=Texts(validation, weighted=weighted),
        data_collator=CollateTexts(tokenizer.pad_token_id),
        compute_loss_func=heads.loss(objective.problem, weighted),
        compute_metrics=_validator(objective.problem, validation),
    )
    if objective.patience:
        worker.add_callback(EarlyStopping(objective.patience))
    return worker, {"padding_share": round(padding_share(train.lengths, samples, job.micro_batch), 4), "samples": len(train.rows)}


class EarlyStopping(TrainerCallback):
    """Ends training after ``patience`` evaluations of which none was better than the best before them (Prechelt 1998).

    Read from the history that checkpoints keep, so that a resumed training ends where it would have ended.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for the end once it is time."""
        scores = [(row["eval_score"], -row["eval_loss"]) for row in state.log_history if "eval_score" in row]
        if len(scores) - 1 - scores.index(max(scores)) >= self.patience:
            control.should_training_stop = True


def _validator(problem: heads.Problem, encoded: Encoded) -> Callable[[EvalPrediction], dict[str, float]]:
    """What transformers calls with the logits of all samples, in the order in which ``Texts`` gives them."""
    samples = Texts(encoded).samples.tolist()
    aims, documents = ([column[index] for index in samples] for column in (encoded.targets, encoded.rows))
    return lambda found: heads.validation(problem, cast(Any, found.predictions), aims, documents)
