"""A model pretrained on the chain's own text: a ModernBERT encoder, or a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from llm_assets.links import plots
from llm_assets.links.base_model import fetch_base, observe_base
from llm_assets.links.link import AssetReference, Bench, Check, Link, Made
from llm_assets.links.tokens import packed_blocks, special_token_ids
from llm_assets.links.training import TrainingSection, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.decoders import Architecture, DecoderShape
from llm_assets.training.initialisation import bigram_start, cooccurrence_embeddings
from llm_assets.training.job import Causal, Masked, ModelShape, TrainingJob
from llm_assets.training.scaling import Derived, Size, derive
from llm_assets.training.weights import check_tokenizer, read_config

EVALUATIONS = 4  # of the validation blocks in one training
ENCODER = {  # what a masked training takes where nothing is stated
    "hidden": 192,
    "layers": 3,
    "heads": 3,
    "intermediate": 288,
    "tokens_budget": 1_200_000,
    "micro_batch": 16,
    "accumulation": 1,
    "learning_rate": 2e-3,
}
OF_DECODERS = ("objective", "size", "architecture", "key_value_heads", "tied")  # keys that say nothing of a masked training
OF_ENCODERS = ("mask_probability", "next_sentence")  # and of a causal one
RUNNING = 0.1  # share of the steps over which the loss at the start and at the end is averaged


class PretrainedCheckpointConfig(TrainingSection):
    """What is learnt, the model's shape, the length of the training and how it is spread over processes."""

    objective: Literal["masked", "causal"] = Field("masked", description="predict masked tokens (an encoder), or each next token (a decoder)")
    size: Size | None = Field(None, description="causal: the dial that sets keys left out, by training/scaling.py; none: micro")
    architecture: Architecture | None = Field(None, description="causal: whose layers; none: llama")
    hidden: int | None = Field(None, ge=8, description="width of the residual stream, divisible by heads; none: 192, or by size")
    layers: int | None = Field(None, ge=1, description="transformer layers; none: 3, or by size")
    heads: int | None = Field(None, ge=1, description="attention heads; none: 3, or by size")
    key_value_heads: int | None = Field(None, ge=1, description="causal: heads of keys and values, a divisor of heads; none: by size, as many")
    intermediate: int | None = Field(None, ge=8, description="width of the gated feed-forward layer; none: 288, or by size")
    tied: bool = Field(True, description="causal: whether the head is the embeddings' matrix")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of new weights, cut off at twice it")
    steps: int = Field(0, ge=0, description="optimizer updates; 0 takes as many as tokens_budget pays for")
    tokens_budget: int | None = Field(None, ge=1, description="tokens to train on, repeats counted, where steps is 0; none: 1,200,000, or by size")
    micro_batch: int | None = Field(None, ge=1, description="sequences in one forward pass of one process; none: 16, or by size")  # type: ignore[assignment]
    accumulation: int | None = Field(None, ge=1, description="forward passes a process makes before an update; none: 1, or by size")  # type: ignore[assignment]
    learning_rate: float | None = Field(None, gt=0, description="highest learning rate; none: 0.002, or by size")  # type: ignore[assignment]
    embeddings: Literal["cooccurrence", "random"] = Field(
        "cooccurrence",
        description="where the token embeddings of a new model start: from the corpus' own co-occurrences, or at random; "
        "causal: a decoder with tied: false as a model of what follows each token, one with tied: true at random",
    )
    mask_probability: float = Field(0.3, gt=0, lt=1, description="masked: share of tokens to predict")
    next_sentence: bool = Field(False, description="masked: also learn to tell whether a document's second half is its own; needs a ModernBERT")
    from_pretrained: str | AssetReference | None = Field(
        None,
        description="continue from a folder of safetensors (a relative one is looked up in the data root, then in the project root), "
        "a model of this name on the hub, or another asset's: {asset: [chain, link]}",
    )
    revision: str = Field("main", description="revision of that model on the hub")
    license: str = Field("not stated", min_length=1, description="of the weights that from_pretrained names; goes with every model into the lineage")
    required_drop: float = Field(0.5, ge=0, description="nats a token by which the loss must fall below its start and below uniform guessing")

    @model_validator(mode="after")
    def _goes_together(self) -> PretrainedCheckpointConfig:
        settled = self.settled()
        hidden, heads = settled["hidden"].value, settled["heads"].value
        if hidden % heads or hidden // heads % 2:
            raise ValueError(f"hidden ({hidden}) must be heads ({heads}) times an even number, since rotary positions come in pairs")
        if self.objective == "masked":
            foreign = [key for key in ("size", "architecture", "key_value_heads") if getattr(self, key) is not None]
        else:
            foreign = ["next_sentence"] if self.next_sentence else []
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: has no meaning with objective {self.objective}; leave it out, or change objective")
        return self

    def settled(self) -> dict[str, Derived]:
        """Shape, budget, batch and learning rate as they are used, each with its reason: stated, of the encoder's defaults, or by the size."""
        names = (*ENCODER, "key_value_heads")
        stated = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.objective == "causal":
            return derive(self.size or "micro", self.processes, stated)
        return {name: Derived(stated.get(name, default), "stated" if name in stated else "default") for name, default in ENCODER.items()}

    def whole(self) -> PretrainedCheckpointConfig:
        """The same with what was left out filled in."""
        return self.model_copy(update={name: entry.value for name, entry in self.settled().items()})

    def recipe(self) -> dict[str, Any]:
        """As every training's, what was left out filled in; the keys of the other objective say nothing of this one."""
        foreign = OF_DECODERS if self.objective == "masked" else (*OF_ENCODERS, "size", *(["embeddings"] if self.tied else []))
        return {key: value for key, value in TrainingSection.recipe(self.whole()).items() if key not in foreign}


def pretrained_checkpoint(
    bench: Bench, config: PretrainedCheckpointConfig, tokens: Artifact, tokenizer: Artifact, compute: Mapping[str, Any]
) -> Made:
    """Pretrains an encoder to predict masked tokens, or a decoder to predict each next one, in worker processes under DeepSpeed ZeRO.

    An encoder's token embeddings start where the corpus' co-occurrences put them, a decoder's with an untied head where they make
    it a bigram model. Masks are drawn anew each time a block is seen. A decoder's depth, width, batch, learning rate and budget
    follow from one dial, each number recorded with its reason. Attention stays within a document. A run that was killed goes on
    from its newest whole checkpoint and ends with the same weights. Metrics state the loss on held-out blocks, of a decoder also
    perplexity and bits per byte, and the share of the machine's measured speed that training reached.
    """
    derived = config.settled()
    config = config.whole()
    assert config.tokens_budget is not None
    layout = tokens.json("layout.json")
    start_from = fetch_base(config.from_pretrained, config.revision)
    if start_from:
        check_tokenizer(start_from, layout["vocabulary_size"], special_token_ids(tokenizer))
        _check_second_head(start_from, config.next_sentence)
    steps = config.steps or max(1, config.tokens_budget // (config.batch * layout["context"]))
    job = TrainingJob(
        objective=_objective(config, tokens),
        tokenizer=tokenizer.directory,
        output=bench.directory,
        scratch=bench.scratch,
        shape=None if start_from else _shape(config),
        **({} if start_from else _start(bench, config, tokens, tokenizer)),
        start_from=start_from,
        steps=steps,
        evaluate_every=math.ceil(steps / EVALUATIONS),
        seed=bench.seed,
        **config.optimization(),
    )
    if config.objective == "masked":
        figures = train(bench, job, config.processes, compute)
    else:
        figures = train(bench, job, config.processes, compute, derived)
        figures["settings"] = {name: f"{entry.value}: {entry.reason}" for name, entry in derived.items()}
    return Made(_metrics(bench, config, figures, layout["vocabulary_size"], compute), (config.license,) if start_from else ())


def _objective(config: PretrainedCheckpointConfig, tokens: Artifact) -> Masked | Causal:
    if config.objective == "causal":
        return Causal(tokens=tokens.directory)
    return Masked(tokens=tokens.directory, mask_probability=config.mask_probability, next_sentence=config.next_sentence)


def _shape(config: PretrainedCheckpointConfig) -> ModelShape | DecoderShape:
    if config.objective == "masked":
        return ModelShape(**config.model_dump(include=set(ModelShape.model_fields)))
    values = config.model_dump(include=set(DecoderShape.model_fields))
    return DecoderShape(**{**values, "architecture": config.architecture or "llama"})


def _check_second_head(folder: Path, next_sentence: bool) -> None:
    """Raises ``ValueError`` where the next-sentence objective is asked of another architecture than ModernBERT."""
    architecture = read_config(folder).get("model_type")
    if next_sentence and architecture != "modernbert":
        raise ValueError(f"next_sentence: true puts a second head on a ModernBERT, and {folder} holds a {architecture}: set it to false")


def _start(bench: Bench, config: PretrainedCheckpointConfig, tokens: Artifact, tokenizer: Artifact) -> dict[str, Path]:
    """Files of the weights that the training blocks' co-occurrences give: an encoder's embeddings, or a decoder's and its head's."""
    import numpy as np

    tied = config.objective == "causal" and config.tied  # embeddings and head of a bigram model are no one matrix
    if config.embeddings == "random" or tied:
        return {}
    layout = tokens.json("layout.json")
    stream = packed_blocks(tokens)[: layout["train_blocks"]].reshape(-1)
    opening, vocabulary, width = special_token_ids(tokenizer)["cls_token"], layout["vocabulary_size"], config.whole().hidden
    assert width is not None
    if config.objective == "masked":
        found = {"embeddings": cooccurrence_embeddings(stream, vocabulary, width, opening, bench.seed, bench.progress)}
    else:
        found = dict(zip(("embeddings", "head"), bigram_start(stream, vocabulary, width, opening, bench.seed), strict=True))
    for name, weights in found.items():
        np.save(bench.scratch / f"{name}.npy", weights)
    return {name: bench.scratch / f"{name}.npy" for name in found}


def observe(config: PretrainedCheckpointConfig) -> Mapping[str, Any]:
    """What ``from_pretrained`` shows."""
    return observe_base(config.from_pretrained, config.revision)


def _metrics(
    bench: Bench, config: PretrainedCheckpointConfig, figures: Mapping[str, Any], vocabulary: int, compute: Mapping[str, Any]
) -> dict[str, Any]:
    import pyarrow.parquet

    curve = pyarrow.parquet.read_table(bench.directory / "curve.parquet").to_pylist()
    train = [row for row in curve if row["loss"] is not None]
    validation = [row for row in curve if row["validation_loss"] is not None]
    width = max(1, int(RUNNING * len(train)))
    speed = sorted(row["tokens_per_second"] for row in train)[len(train) // 2]
    plots.curves(
        bench.directory,
        "loss",
        {
            "training": ([row["step"] for row in train], [row["loss"] for row in train]),
            "validation": ([row["step"] for row in validation], [row["validation_loss"] for row in validation]),
        },
        "Masked-language loss" if config.objective == "masked" else "Causal-language loss",
        "step",
        f"nats a {'masked' if config.objective == 'masked' else 'predicted'} token",
    )
    flops = 6 * figures["body_parameters"] * speed  # forward and backward of the layers; the head runs on masked tokens only
    held_out = {} if config.objective == "masked" else _of_text(validation[-1])
    return {
        "first_loss": train[0]["loss"],
        "last_loss": sum(row["loss"] for row in train[-width:]) / width,
        "validation_loss": validation[-1]["validation_loss"],
        **held_out,
        "uniform_loss": math.log(vocabulary),
        "tokens_per_second": speed,
        "share_of_matmul_speed": round(flops / 1e9 / compute["matmul_gflops"], 3),
        **figures,
    }


def _of_text(row: Mapping[str, float]) -> dict[str, float]:
    """What the loss says of held-out text: perplexity a token, and bits a byte of what the predicted tokens write."""
    return {"perplexity": math.exp(row["validation_loss"]), "bits_per_byte": row["validation_bits_per_byte"]}


def _loss_fell(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    metrics = artifact.metrics
    margin = artifact.manifest.recipe["config"]["required_drop"]
    return Verdict(
        check="loss_fell",
        passed=metrics["last_loss"] < metrics["first_loss"] - margin and metrics["validation_loss"] < metrics["uniform_loss"] - margin,
        description=(
            f"training loss {metrics['first_loss']:.3f} -> {metrics['last_loss']:.3f}, validation {metrics['validation_loss']:.3f}; "
            f"guessing uniformly costs ln(V) = {metrics['uniform_loss']:.3f}, and {margin:.2f} below is asked for"
        ),
        values={name: metrics[name] for name in ("first_loss", "last_loss", "validation_loss", "uniform_loss")},
    )


def weights_finite(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    """Whether every weight in ``model.safetensors`` is a finite number."""
    import torch
    from safetensors import safe_open

    with safe_open(artifact.path("model.safetensors"), framework="pt") as file:  # torch, since numpy has no bfloat16
        bad = [name for name in file.keys() if not torch.isfinite(file.get_tensor(name)).all()]  # noqa: SIM118  # no mapping
    return Verdict(
        check="weights_finite",
        passed=not bad,
        description=f"not finite: {', '.join(bad)}" if bad else "every weight is a finite number",
    )


LINK = Link(
    name="pretrained_checkpoint",
    version=3,
    make=pretrained_checkpoint,
    config=PretrainedCheckpointConfig,
    inputs=("tokens", "tokenizer", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface"),
    checks=(
        Check("loss_fell", "The loss fell below its start and below guessing uniformly.", _loss_fell),
        Check("weights_finite", "No weight is infinite or not a number.", weights_finite),
    ),
    trained=True,
    observe=observe,
    libraries=("torch", "transformers", "deepspeed", "safetensors"),
)
