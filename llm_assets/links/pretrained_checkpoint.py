"""A model pretrained on the chain's own text: a ModernBERT encoder, a decoder, or an encoder-decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from llm_assets.links import plots
from llm_assets.links.base_model import fetch_base, observe_base
from llm_assets.links.link import AssetReference, Bench, Check, Link, Made
from llm_assets.links.tokenizer import refuse_without_sentinels
from llm_assets.links.tokens import packed_blocks, special_token_ids
from llm_assets.links.training import TrainingSection, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training import encoder_decoders
from llm_assets.training.decoders import Architecture, DecoderShape
from llm_assets.training.encoder_decoders import EncoderDecoderShape
from llm_assets.training.initialisation import bigram_start, cooccurrence_embeddings
from llm_assets.training.job import Causal, Denoising, Masked, ModelShape, TrainingJob
from llm_assets.training.scaling import Derived, Size, derive
from llm_assets.training.spans import amounts
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
OF_DENOISING = ("corruption", "mean_span")
OF_ENCODERS = ("mask_probability", "next_sentence")
UNSAID = {  # keys that say nothing of a training with each objective
    "masked": ("objective", "size", "architecture", "key_value_heads", "tied", *OF_DENOISING),
    "causal": ("size", *OF_ENCODERS, *OF_DENOISING),
    "span_denoising": ("size", "architecture", "key_value_heads", "tied", "embeddings", *OF_ENCODERS),
}
STATED = {  # of those that are none unless stated, and so can be refused
    "masked": ("size", "architecture", "key_value_heads"),
    "causal": ("next_sentence",),
    "span_denoising": ("key_value_heads", "next_sentence"),
}
LOSS = {  # of each objective: what the curve is called, and its unit
    "masked": ("Masked-language loss", "nats a masked token"),
    "causal": ("Causal-language loss", "nats a predicted token"),
    "span_denoising": ("Span-denoising loss", "nats a token of what was cut out, its sentinels and end"),
}
RUNNING = 0.1  # share of the steps over which the loss at the start and at the end is averaged


class PretrainedCheckpointConfig(TrainingSection):
    """What is learnt, the model's shape, the length of the training and how it is spread over processes."""

    objective: Literal["masked", "causal", "span_denoising"] = Field(
        "masked", description="predict masked tokens (an encoder), each next token (a decoder), or spans that were cut out (an encoder-decoder)"
    )
    size: Size | None = Field(None, description="causal, span_denoising: the dial that sets keys left out, by training/scaling.py; none: micro")
    architecture: Architecture | Literal["t5"] | None = Field(None, description="whose layers; none: llama where causal, t5 where span_denoising")
    hidden: int | None = Field(None, ge=8, description="width of the residual stream, divisible by heads; none: 192, or by size")
    layers: int | None = Field(None, ge=1, description="transformer layers, of an encoder-decoder both its halves'; none: 3, or by size")
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
    corruption: float = Field(0.15, gt=0, lt=1, description="span_denoising: share of a document's tokens that are cut out")
    mean_span: float = Field(3.0, ge=1, description="span_denoising: tokens of a span in the mean")
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
        foreign = [key for key in STATED[self.objective] if getattr(self, key) not in (None, False)]
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: has no meaning with objective {self.objective}; leave it out, or change objective")
        denoises = self.objective == "span_denoising"
        if self.architecture is not None and denoises != (self.architecture == encoder_decoders.MODEL_TYPE):
            raise ValueError(
                f"architecture {self.architecture} is not trained with objective {self.objective}: span_denoising is for t5, an encoder-decoder, "
                "and causal for decoders; change one of the two"
            )
        if denoises and not self.tied:
            raise ValueError("tied: false is not possible with objective span_denoising, since transformers ties a T5's embeddings and head")
        return self

    def settled(self) -> dict[str, Derived]:
        """Shape, budget, batch and learning rate as they are used, each with its reason: stated, of the encoder's defaults, or by the size."""
        names = (*ENCODER, "key_value_heads")
        stated = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.objective != "masked":
            return derive(self.size or "micro", self.processes, stated, encoder_decoder=self.objective == "span_denoising")
        return {name: Derived(stated.get(name, default), "stated" if name in stated else "default") for name, default in ENCODER.items()}

    def whole(self) -> PretrainedCheckpointConfig:
        """The same with what was left out filled in."""
        return self.model_copy(update={name: entry.value for name, entry in self.settled().items()})

    def recipe(self) -> dict[str, Any]:
        """As every training's, what was left out filled in; the keys of the other objectives say nothing of this one."""
        unsaid = (*UNSAID[self.objective], *(["embeddings"] if self.objective == "causal" and self.tied else []))
        return {key: value for key, value in TrainingSection.recipe(self.whole()).items() if key not in unsaid}


def pretrained_checkpoint(
    bench: Bench, config: PretrainedCheckpointConfig, tokens: Artifact, tokenizer: Artifact, compute: Mapping[str, Any]
) -> Made:
    """Pretrains an encoder to predict masked tokens, a decoder to predict each next one, or an encoder-decoder to write what was cut out of a
    text, in worker processes under DeepSpeed ZeRO.

    An encoder's token embeddings start where the corpus' co-occurrences put them, a decoder's with an untied head where they make
    it a bigram model. Masks and spans are drawn anew each time a block is seen. A decoder's depth, width, batch, learning rate and budget
    follow from one dial, each number recorded with its reason. Attention stays within a document. A run that was killed goes on
    from its newest whole checkpoint and ends with the same weights. Metrics state the loss on held-out blocks, of a decoder also
    perplexity and bits per byte, and the share of the machine's measured speed that training reached. An encoder-decoder's loss is that of
    what was cut out, sentinels included, given the rest: it does not compare with the others'.
    """
    derived = config.settled()
    config = config.whole()
    assert config.tokens_budget is not None
    layout = tokens.json("layout.json")
    start_from = fetch_base(config.from_pretrained, config.revision)
    if start_from:
        check_tokenizer(start_from, layout["vocabulary_size"], special_token_ids(tokenizer))
        _check_second_head(start_from, config.next_sentence)
        if config.objective == "span_denoising":
            encoder_decoders.refuse_unfit(read_config(start_from), str(start_from))
    if config.objective == "span_denoising":
        refuse_without_sentinels(tokenizer, amounts(layout["context"], config.corruption, config.mean_span)[1])
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


def _objective(config: PretrainedCheckpointConfig, tokens: Artifact) -> Masked | Causal | Denoising:
    if config.objective == "causal":
        return Causal(tokens=tokens.directory)
    if config.objective == "span_denoising":
        return Denoising(tokens=tokens.directory, corruption=config.corruption, mean_span=config.mean_span)
    return Masked(tokens=tokens.directory, mask_probability=config.mask_probability, next_sentence=config.next_sentence)


def _shape(config: PretrainedCheckpointConfig) -> ModelShape | DecoderShape | EncoderDecoderShape:
    if config.objective == "masked":
        return ModelShape(**config.model_dump(include=set(ModelShape.model_fields)))
    if config.objective == "span_denoising":
        return EncoderDecoderShape(**config.model_dump(include=set(EncoderDecoderShape.model_fields) - {"architecture"}))
    values = config.model_dump(include=set(DecoderShape.model_fields))
    return DecoderShape(**{**values, "architecture": config.architecture or "llama"})


def _check_second_head(folder: Path, next_sentence: bool) -> None:
    """Raises ``ValueError`` where the next-sentence objective is asked of another architecture than ModernBERT."""
    architecture = read_config(folder).get("model_type")
    if next_sentence and architecture != "modernbert":
        raise ValueError(f"next_sentence: true puts a second head on a ModernBERT, and {folder} holds a {architecture}: set it to false")


def _start(bench: Bench, config: PretrainedCheckpointConfig, tokens: Artifact, tokenizer: Artifact) -> dict[str, Path]:
    """Files of the weights that the training blocks' co-occurrences give: an encoder's embeddings, or those and the head of a decoder."""
    import numpy as np

    tied = config.objective != "masked" and config.tied  # embeddings and head of a bigram model are no one matrix
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
    title, unit = LOSS[config.objective]
    plots.curves(
        bench.directory,
        "loss",
        {
            "training": ([row["step"] for row in train], [row["loss"] for row in train]),
            "validation": ([row["step"] for row in validation], [row["validation_loss"] for row in validation]),
        },
        title,
        "step",
        unit,
    )
    flops = 6 * figures["body_parameters"] * speed  # forward and backward of the layers; the head runs on masked tokens only
    both = config.objective == "span_denoising"  # halves, of which each sees tokens of its own
    alike = figures["hardware"]["device"] == "cpu" and not both  # what compute measured is the host's speed
    return {
        "first_loss": train[0]["loss"],
        "last_loss": sum(row["loss"] for row in train[-width:]) / width,
        "validation_loss": validation[-1]["validation_loss"],
        **(_of_text(validation[-1]) if config.objective == "causal" else {}),
        "uniform_loss": math.log(vocabulary),
        "tokens_per_second": speed,
        **({"share_of_matmul_speed": round(flops / 1e9 / compute["matmul_gflops"], 3)} if alike else {}),
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
