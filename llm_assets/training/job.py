"""The training job: everything the worker processes need, in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_assets.store.files import write_atomic
from llm_assets.store.strict import Strict


class Part(BaseModel):
    """A piece of a job; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelShape(Part):
    """The dimensions of a ModernBERT encoder (Warner et al. 2024, https://arxiv.org/abs/2412.13663)."""

    hidden: int = Field(192, ge=8, description="width of the residual stream")
    layers: int = Field(3, ge=1, description="transformer layers; every third one attends globally")
    heads: int = Field(3, ge=1, description="attention heads; must divide hidden")
    intermediate: int = Field(288, ge=8, description="width of the gated feed-forward layer")


class Masked(Part):
    """Masked-language modelling over packed blocks of tokens; the head runs on masked positions only."""

    kind: Literal["masked"] = "masked"
    tokens: Path = Field(description="folder of tokens.bin and layout.json")
    mask_probability: float = Field(0.3, gt=0, lt=1, description="share of tokens to predict")


class Classification(Part):
    """Sequence classification; the evaluation that scores best on the validation split is kept."""

    kind: Literal["classification"] = "classification"
    train: Path = Field(description="Parquet with the columns text and label")
    evaluation: Path = Field(description="Parquet with the columns text, label and split; only split validation is read")
    labels: tuple[str, ...]
    max_length: int = Field(128, ge=8, description="tokens; longer texts are cut")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the embeddings, the layers and before the classifier")


class Optimization(Strict):
    """How weights are updated: stated in the section of every link that trains, and handed to the workers as it is."""

    micro_batch: int = Field(16, ge=1, description="sequences in one forward pass of one process")
    accumulation: int = Field(1, ge=1, description="forward passes a process makes before an update")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises; then it falls linearly to 0")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW, on weight matrices")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients of a larger norm are scaled down to it")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    checkpoint_seconds: float = Field(60.0, ge=0, description="between two checkpoints that a killed run resumes from; 0: after every update")

    def optimization(self) -> dict[str, Any]:
        """These settings alone, for a ``TrainingJob``."""
        return self.model_dump(include=set(Optimization.model_fields))


class TrainingJob(Optimization):
    """One training: what to learn from what, how, and where the result goes."""

    objective: Annotated[Masked | Classification, Field(discriminator="kind")]
    tokenizer: Path
    output: Path = Field(description="folder for config.json and model.safetensors")
    scratch: Path = Field(description="folder for checkpoints; kept when the run is killed")
    shape: ModelShape | None = Field(None, description="build a model of this shape with random weights")
    embeddings: Path | None = Field(None, description="token embeddings that model starts with, a .npy of float32 [vocabulary, hidden]; none: random")
    start_from: Path | None = Field(None, description="or continue from this folder of weights")
    steps: int = Field(ge=1, description="optimizer updates in all")
    evaluate_every: int = Field(ge=1, description="updates between two evaluations; the last update is always evaluated")
    seed: int = 0

    def write(self, path: Path) -> Path:
        """Write the job as JSON; returns ``path``."""
        write_atomic(path, self.model_dump_json(indent=2))
        return path

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        """Read a job. Raises pydantic's ``ValidationError`` naming the field for a wrong one."""
        return cls.model_validate_json(path.read_bytes())


WORKER = "llm_assets.training.worker"  # the module each process runs; named here so that the links that train count it among their sources

# What worker and launcher leave beside the job.
PROGRESS = "progress.jsonl"  # one line a logged step: step, total, loss, tokens_per_second, eta_s
SUMMARY = "summary.json"  # written by rank 0 after the last step
CANCEL = "cancel"  # made by the launcher before SIGTERM: end at once, write no checkpoint
PREEMPTED = "preempted.json"  # made by rank 0 after a checkpoint that a SIGTERM from outside asked for
PREEMPTED_EXIT = 75  # EX_TEMPFAIL of sysexits.h: try again later
