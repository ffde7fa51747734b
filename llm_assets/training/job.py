"""The training job: everything the worker processes need, in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_assets.store.files import write_atomic
from llm_assets.store.strict import Strict
from llm_assets.training.adapters import Adapter
from llm_assets.training.decoders import DecoderShape
from llm_assets.training.devices import CPU, DeviceKind, DeviceSettings
from llm_assets.training.encoder_decoders import EncoderDecoderShape
from llm_assets.training.heads import Problem
from llm_assets.training.rewards import AnyReward


class Part(BaseModel):
    """A piece of a job; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelShape(Part):
    """The dimensions of a ModernBERT encoder (Warner et al. 2024, https://arxiv.org/abs/2412.13663)."""

    hidden: int = Field(192, ge=8, description="width of the residual stream")
    layers: int = Field(3, ge=1, description="transformer layers; every third one attends globally")
    heads: int = Field(3, ge=1, description="attention heads; must divide hidden")
    intermediate: int = Field(288, ge=8, description="width of the gated feed-forward layer")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of new weights, cut off at twice it")


class Masked(Part):
    """Masked-language modelling over packed blocks of tokens; the head runs on masked positions only."""

    kind: Literal["masked"] = "masked"
    tokens: Path = Field(description="folder of tokens.bin and layout.json")
    mask_probability: float = Field(0.3, gt=0, lt=1, description="share of tokens to predict")
    next_sentence: bool = Field(False, description="also tell whether a document's second half is its own (training/next_sentence.py)")


CHUNK: dict[DeviceKind, int] = {  # positions whose scores a causal model's loss holds at once
    "cpu": 256,  # 8 MiB at 8,192 tokens, of which most stays in a core's cache
    "cuda": 4096,  # products large enough to fill a GPU
}


class Causal(Part):
    """Predicting the next token of each document in packed blocks (training/causal.py)."""

    kind: Literal["causal"] = "causal"
    tokens: Path = Field(description="folder of tokens.bin and layout.json")


class Denoising(Part):
    """Writing the spans that were cut out of each document in packed blocks (training/denoising.py)."""

    kind: Literal["span_denoising"] = "span_denoising"
    tokens: Path = Field(description="folder of tokens.bin and layout.json")
    corruption: float = Field(0.15, gt=0, lt=1, description="share of a document's tokens that are cut out")
    mean_span: float = Field(3.0, ge=1, description="tokens of a span in the mean")


class Classification(Part):
    """Sequence classification or regression; the evaluation that scores best on the validation split is kept."""

    kind: Literal["classification"] = "classification"
    train: Path = Field(description="Parquet with the columns text and label")
    evaluation: Path = Field(description="Parquet with the columns text, label and split; only split validation is read")
    labels: tuple[str, ...] = Field(description="the model's outputs in their order")
    problem: Problem = Field("single_label", description="what a label is: one name, several with a bar between them, or a number")
    architecture: str | None = Field(None, description="build this one of training/architectures.py with random weights; none: continue start_from")
    max_length: int = Field(128, ge=8, description="tokens; longer texts are cut, or become windows")
    overlap: int | None = Field(None, ge=0, description="tokens that two windows of a longer text share; none: it is cut")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the embeddings, the layers and before the classifier")
    patience: int = Field(0, ge=0, description="evaluations without a better one after which training ends; 0: it never ends early")


class Conversation(Part):
    """Learning the assistant's turns of packed conversations; the evaluation with the least loss on validation is kept (training/conversation.py)."""

    kind: Literal["conversation"] = "conversation"
    train: Path = Field(description="Parquet with the column messages, turns of role and content")
    evaluation: Path = Field(description="Parquet with the column messages: the validation split")
    max_length: int = Field(256, ge=8, description="tokens of a block; longer conversations are cut")
    adapter: Adapter = Field(Adapter(), description="which weights are trained")


class Answering(Part):
    """Learning the assistant's turns from all that was said before each, with an encoder-decoder (training/answering.py)."""

    kind: Literal["answering"] = "answering"
    train: Path = Field(description="Parquet with the column messages, turns of role and content")
    evaluation: Path = Field(description="Parquet with the column messages: the validation split")
    max_length: int = Field(256, ge=8, description="tokens of a block, sources and answers together; longer conversations are cut")


Method = Literal["dpo", "kto", "orpo"]


class Preference(Part):
    """Learning which of two replies is preferred; the evaluation with the least loss on validation is kept (training/preference.py)."""

    kind: Literal["preference"] = "preference"
    train: Path = Field(description="Parquet of encoded examples, in the columns that the method asks for (training/pairs.py)")
    evaluation: Path = Field(description="the same of the validation split")
    method: Method = Field(description="dpo (Rafailov et al. 2023), kto (Ethayarajh et al. 2024) or orpo (Hong et al. 2024)")
    beta: float = Field(gt=0, description="how dearly the distance from the model it began as is bought; of orpo the weight of the odds ratio")
    max_length: int = Field(256, ge=8, description="tokens of a prompt with a reply; the pairs are cut to it already")


class Rewarded(Part):
    """Learning by what drawn replies earn; the evaluation that earns most on validation is kept (training/grpo.py)."""

    kind: Literal["reward"] = "reward"
    train: Path = Field(description="Parquet with the column messages, turns of role and content, the user's last")
    evaluation: Path = Field(description="the same of the validation split")
    rewards: tuple[AnyReward, ...] = Field(min_length=1, description="what a reply is worth; the mean by their weights is raised")
    group: int = Field(ge=2, description="replies to a prompt, which are compared; divides micro_batch")
    answer_tokens: int = Field(ge=1, description="tokens of a reply at most")
    beta: float = Field(
        gt=0, description="how dearly the distance from the model it began as is bought: weight of the estimated divergence of each token"
    )
    max_length: int = Field(256, ge=8, description="tokens of a prompt with a reply; a longer prompt's beginning is cut off")


Packed = Masked | Causal | Denoising  # what reads packed blocks of tokens
Examples = Classification | Conversation | Answering | Preference | Rewarded  # and what reads a table of examples


class Optimization(Strict):
    """How weights are updated: stated in the section of every link that trains, and handed to the workers as it is."""

    micro_batch: int = Field(16, ge=1, description="sequences in one forward pass of one process")
    accumulation: int = Field(1, ge=1, description="forward passes a process makes before an update")
    optimizer: Literal["adamw", "nadamw", "sgd", "muon"] = Field(
        "adamw",
        description="AdamW, AdamW with Nesterov momentum, SGD with Nesterov momentum, or Muon for matrices and AdamW for the rest",
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="how much of the mean of past gradients is kept; the momentum of sgd")
    beta2: float = Field(0.999, ge=0, lt=1, description="how much of the mean of past squared gradients is kept; sgd has none")
    epsilon: float = Field(1e-8, gt=0, description="added to the root of that mean; sgd has none")
    schedule: Literal["linear", "cosine", "constant_with_warmup", "warmup_stable_decay"] = Field(
        "linear", description="the learning rate after the warmup: falls to 0 on a line or half a cosine, stays, or stays and falls over decay"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises on a line")
    decay: float = Field(0.2, gt=0, le=1, description="share of the steps, the last ones, over which warmup_stable_decay falls")
    weight_decay: float = Field(0.01, ge=0, description="share of itself, times the learning rate, that every weight loses in an update")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients of a larger norm are scaled down to it")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    offload_optimizer: Literal["none", "cpu"] = Field("none", description="keep a GPU's optimizer states in host memory; from zero_stage 1 on")
    offload_parameters: Literal["none", "cpu"] = Field("none", description="keep a GPU's share of the weights in host memory; zero_stage 3 alone")
    activation_checkpointing: bool = Field(False, description="keep each layer's input alone and compute the rest again: a third more work")
    torch_compile: bool = Field(False, description="compile the model with torch.compile at the start (minutes; wants a C++ compiler)")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="what to train on; auto takes CUDA where a GPU and torch's CUDA build are")
    checkpoint_seconds: float = Field(60.0, ge=0, description="between two checkpoints that a killed run resumes from; 0: after every update")

    @model_validator(mode="after")
    def _possible(self) -> Optimization:
        """Refuse settings that exclude each other, naming both and what is allowed."""
        if self.offload_optimizer == "cpu" and self.zero_stage == 0:
            raise ValueError("offload_optimizer: cpu needs zero_stage 1, 2 or 3 (it is 0), since ZeRO does the offloading; or set it to none")
        if self.offload_parameters == "cpu" and self.zero_stage != 3:
            raise ValueError(f"offload_parameters: cpu needs zero_stage 3 (it is {self.zero_stage}), which partitions the weights; or set it to none")
        for key in ("offload_optimizer", "offload_parameters"):
            if self.device == "cpu" and getattr(self, key) == "cpu":
                raise ValueError(f"{key}: cpu with device: cpu moves nothing, since all is in host memory already: set {key} to none")
        if self.offload_optimizer == "cpu" and self.optimizer != "adamw":
            raise ValueError(f"offload_optimizer: cpu needs optimizer adamw (it is {self.optimizer}), the one DeepSpeed updates on the host")
        if self.optimizer == "muon" and self.zero_stage != 0:
            raise ValueError(f"optimizer: muon needs zero_stage 0 (it is {self.zero_stage}), since it looks at whole matrices, which ZeRO cuts")
        if self.schedule == "warmup_stable_decay" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) are shares of the steps and must not exceed 1 together")
        return self

    def optimization(self) -> dict[str, Any]:
        """These settings alone, for a ``TrainingJob``."""
        return self.model_dump(include=set(Optimization.model_fields))


class TrainingJob(Optimization):
    """One training: what to learn from what, how, and where the result goes."""

    objective: Annotated[Packed | Examples, Field(discriminator="kind")]
    tokenizer: Path
    output: Path = Field(description="folder for config.json and model.safetensors")
    scratch: Path = Field(description="folder for checkpoints; kept when the run is killed")
    shape: ModelShape | DecoderShape | EncoderDecoderShape | None = Field(None, description="build a model of this shape with random weights")
    embeddings: Path | None = Field(None, description="token embeddings that model starts with, a .npy of float32 [vocabulary, hidden]; none: random")
    head: Path | None = Field(None, description="weights that the untied head of that model starts with, alike; none: random")
    start_from: Path | None = Field(None, description="or continue from this folder of weights")
    steps: int = Field(ge=1, description="optimizer updates in all")
    evaluate_every: int = Field(ge=1, description="updates between two evaluations; the last update is always evaluated")
    seed: int = 0
    hardware: DeviceSettings = Field(CPU, description="what it runs on and the settings that follow, decided before the launch")

    @model_validator(mode="after")
    def _long_enough(self) -> TrainingJob:
        if self.steps < 3 and isinstance(self.objective, Conversation) and self.objective.adapter.kind == "adalora":
            raise ValueError(f"adapter.kind adalora prunes between updates, 3 at least (there are {self.steps}): train more epochs, or take lora")
        return self

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
FAULT = "fault.json"  # made by a rank that met a loss or a gradient that is no number: message, update, rows, documents
PREEMPTED = "preempted.json"  # made by rank 0 after a checkpoint that a SIGTERM from outside asked for
PREEMPTED_EXIT = 75  # EX_TEMPFAIL of sysexits.h: try again later
