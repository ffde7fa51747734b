"""How much memory a training takes on each device, before it is started; no torch is imported.

Weights, gradients and optimizer states as ZeRO partitions them (Rajbhandari et al. 2020, section 3: 2 + 2 + 12 bytes a parameter
in mixed precision); activations counted tensor by tensor as Korthikanti et al. 2022 (section 4) do, for the layers trained here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_assets.training.decoders import DecoderShape
from llm_assets.training.encoder_decoders import EncoderDecoderShape, is_one
from llm_assets.training.job import CHUNK, Answering, Causal, Conversation, Denoising, Masked, ModelShape, Preference, Rewarded, TrainingJob
from llm_assets.training.weights import WeightsError, parameters, read_config
from llm_assets.training.zero import BUCKET

RUNTIME = {"cpu": 620 * 2**20, "cuda": 1 * 2**30}  # of a process that has imported torch and DeepSpeed; on CUDA context, cuBLAS and NCCL
GAPS = 0.6  # of what comes and goes, that a CPU's heap holds besides, in gaps that tensors of other sizes left (measured, docs/methods.md)
MAPPED = 32 * 2**20  # bytes from which on glibc takes a tensor from the system and gives it back (mallopt(3), M_MMAP_THRESHOLD)
LIVE = 1_000_000_000  # parameters that ZeRO-3 keeps gathered: DeepSpeed's stage3_max_live_parameters
ROOM = 0.9  # share of the memory that an estimate may take: what it leaves out, and fragmentation, need the rest
EVALUATION = 4  # sequences in a batch of an evaluation, as a multiple of micro_batch
DECODER = 13  # vectors that a decoder's layer keeps: 4 of them (queries, keys, values, output) for documents filled up to half as many places more
NORMED = 4  # and where queries and keys have norms of their own
READ, WRITTEN = 10, 15  # vectors that a layer of T5's encoder and one of its decoder keep of each of their tokens
SOURCE = 2  # and one of the decoder of each token that it attends to: key and value
ANSWERED = 0.5  # of a block of answers with their sources, at most
TEMPORARIES = {"cpu": 8, "cuda": 4}  # bytes a number of the share while it is updated (CUDA: fitted, docs/methods.md)
STATES = {"adamw": 2, "nadamw": 2, "sgd": 1, "muon": 2}  # numbers an optimizer keeps a parameter


class MemoryRefusedError(ValueError):
    """A training cannot fit; the message names the smallest change that would."""


@dataclass(frozen=True)
class Dimensions:
    """What of a model decides the memory it trains in."""

    parameters: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    gated: bool  # the feed-forward layer multiplies two halves
    scores: bool  # attention keeps its [length, length] scores: it has dropout, or no fused kernel
    sparse: bool  # logits at masked positions alone
    vectors: int = 11  # of the residual stream's width that a layer keeps of each token
    decoder_layers: int = 0  # beside ``layers``, which read: those of an encoder-decoder that write


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device, by what takes them."""

    runtime: int
    weights: int
    reference: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    gaps: int
    buffers: int

    @property
    def total(self) -> int:
        """All of them: activations and logits are there at once when the backward pass begins."""
        return sum(asdict(self).values())


def new(shape: ModelShape | DecoderShape | EncoderDecoderShape, vocabulary: int) -> Dimensions:
    """A model of ``shape`` with random weights."""
    if isinstance(shape, ModelShape):
        return new_model(shape, vocabulary)
    return new_decoder(shape, vocabulary) if isinstance(shape, DecoderShape) else new_encoder_decoder(shape, vocabulary)


def new_model(shape: ModelShape, vocabulary: int) -> Dimensions:
    """A ModernBERT of ``shape`` with a masked head: tied embeddings, no bias but the head's."""
    hidden, wide = shape.hidden, shape.intermediate
    layer = 4 * hidden * hidden + 3 * hidden * wide + 2 * hidden
    outside = vocabulary * hidden + 2 * hidden + hidden * hidden + hidden + vocabulary  # embeddings and norms, head, its bias
    count = shape.layers * layer - hidden + outside  # the first layer has no norm before its attention
    return Dimensions(count, vocabulary, hidden, shape.layers, shape.heads, wide, gated=True, scores=False, sparse=True)


def new_decoder(shape: DecoderShape, vocabulary: int) -> Dimensions:
    """A decoder of ``shape``; attention keeps no scores."""
    count, vectors = shape.parameters(vocabulary), DECODER + (NORMED if shape.architecture == "qwen3" else 0)
    return Dimensions(count, vocabulary, shape.hidden, shape.layers, shape.heads, shape.intermediate, True, False, False, vectors)


def new_encoder_decoder(shape: EncoderDecoderShape, vocabulary: int) -> Dimensions:
    """A T5 of ``shape``."""
    count, layers = shape.parameters(vocabulary), (shape.encoder_layers, shape.decoder_layers)
    return _encoder_decoder(count, vocabulary, shape.hidden, layers, shape.heads, shape.intermediate)


def _encoder_decoder(count: int, vocabulary: int, hidden: int, layers: tuple[int, int], heads: int, intermediate: int) -> Dimensions:
    return Dimensions(count, vocabulary, hidden, layers[0], heads, intermediate, True, False, False, READ, layers[1])


def saved_model(folder: Path) -> Dimensions:
    """The model of a folder, from its configuration and its safetensors headers. Raises ``WeightsError`` for weights that are not whole.

    Encoders other than ModernBERT have dropout in their attention, and so keep its scores. Decoders are those that state how many
    heads keys and values have.
    """
    config = read_config(folder)
    if is_one(config):
        vocabulary, hidden, reading, heads, wide = (_named(config, name) for name in ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff"))
        layers = (reading, _named(config, "num_decoder_layers", default=reading))
        return _encoder_decoder(parameters(folder), vocabulary, hidden, layers, heads, wide)
    decoder = "num_key_value_heads" in config
    modern = decoder or config.get("model_type") == "modernbert"
    hidden = _named(config, "hidden_size", "dim")
    return Dimensions(
        parameters=parameters(folder),
        vocabulary=_named(config, "vocab_size"),
        hidden=hidden,
        layers=_named(config, "num_hidden_layers", "n_layers", default=1),
        heads=_named(config, "num_attention_heads", "n_heads", default=1),
        intermediate=_named(config, "intermediate_size", "hidden_dim", default=4 * hidden),
        gated=modern,
        scores=not modern,
        sparse=bool(config.get("sparse_prediction")),
        vectors=DECODER + (NORMED if config.get("model_type") == "qwen3" else 0) if decoder else 11,
    )


def _named(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """A number of a configuration under one of the names that architectures have for it. Raises ``WeightsError`` where none is stated."""
    value = next((config[name] for name in names if name in config), default)
    if value is None:
        raise WeightsError(f"config.json states no {' or '.join(names)}: it is not the configuration of an encoder")
    return int(value)


def estimate(job: TrainingJob, processes: int, model: Dimensions, length: int) -> Estimate:
    """Bytes on each of ``processes`` devices for sequences of ``length`` tokens.

    On a GPU, offloaded parts count on the host and not here. On a CPU each process is a device of its own.
    """
    precise = job.hardware.precision.value == "float32"
    width, count = (4 if precise else 2), model.parameters
    shared = math.ceil(count / processes)
    partitioned = job.zero_stage > 0
    weights = width * (shared + min(count, LIVE) if job.zero_stage == 3 else count)
    if job.zero_stage == 3 and job.hardware.device.value == "cpu":
        weights += width * count  # the first process gathers all of them into host memory to save them
    if job.offload_parameters == "cpu":
        weights -= width * shared
    gradients = width * (shared if job.zero_stage >= 2 else count)
    gradients += 4 * shared if partitioned else 0 if precise else 4 * count  # again in float32: the share while it is applied, all with ZeRO-0
    master = partitioned or not precise  # ZeRO keeps a float32 copy of its share even of float32 weights
    temporaries = TEMPORARIES[job.hardware.device.value] * shared if partitioned else 0
    optimizer = 4 * (STATES[job.optimizer] + master) * (shared if partitioned else count) + temporaries
    if job.offload_optimizer == "cpu":
        optimizer = 0
    buffers = 2 * width * min(BUCKET, count) if partitioned else 0
    tokens = job.micro_batch * length * (2 if isinstance(job.objective, Preference) else 1)  # both replies, each after its prompt
    layers = activations(job, model, tokens, length, width)
    reference = 0
    if isinstance(job.objective, Rewarded):  # whose model of the beginning is not partitioned
        layers = max(layers, width * 2 * model.layers * model.hidden * EVALUATION * tokens)  # or keys and values of the replies being drawn
        reference = width * count
    logits = _logits(job, model, tokens)
    # replies are mostly far shorter than they may be, so what would be mapped stands in the heap: without, 1.87 GiB foreseen of 2.35 used
    largest = (0, 0) if isinstance(job.objective, Rewarded) else (width * tokens * max(model.hidden, model.intermediate), logits // 8)
    gaps = _gaps((layers, largest[0]), (logits, largest[1])) if job.hardware.device.value == "cpu" else 0
    return Estimate(RUNTIME[job.hardware.device.value], weights, reference, gradients, optimizer, layers, logits, gaps, buffers)


def activations(job: TrainingJob, model: Dimensions, tokens: int, length: int, width: int) -> int:
    """Bytes kept for the backward pass.

    A layer keeps, for each token, ``vectors`` of the residual stream's width h (an encoder 11: both norms' input and output, the joined
    queries, keys and values, the rotated queries and keys, attention's output and its copy; a decoder ``DECODER``) and the feed-forward layer's inner
    vectors: 4 of its width where it is gated, else 2. Attention that keeps its scores adds 3 * heads * length. Checkpointed, a
    layer keeps its input alone, and one layer at a time is computed again (Chen et al. 2016). Of an encoder-decoder each stack's layers
    keep what they keep of their own tokens, and scores once, to which the learned biases of distances are added.
    """
    if model.decoder_layers:
        return width * _of_both_stacks(job, model, tokens, length)
    layer = model.vectors * model.hidden + (4 if model.gated else 2) * model.intermediate + (3 * model.heads * length if model.scores else 0)
    kept = model.layers * model.hidden + layer if job.activation_checkpointing else model.layers * layer
    masks = 2 * tokens * length * (1 + width) if isinstance(job.objective, Masked) else 0  # per document, for global and local layers
    return tokens * width * (kept + 2 * model.hidden) + masks


def _of_both_stacks(job: TrainingJob, model: Dimensions, tokens: int, length: int) -> int:
    """Numbers that an encoder-decoder keeps: the encoder of the source's tokens, the decoder of the answers', and of the source's key and value."""
    objective, hidden = job.objective, model.hidden
    share = objective.corruption * (1 + 1 / objective.mean_span) if isinstance(objective, Denoising) else ANSWERED
    written, inner = math.ceil(share * tokens), 4 * model.intermediate
    read = tokens * (READ * hidden + inner + model.heads * length)
    answered = written * (WRITTEN * hidden + inner + math.ceil(model.heads * length * (1 + share))) + SOURCE * hidden * tokens
    ends = 2 * hidden * (tokens + written)
    if job.activation_checkpointing:
        return hidden * (model.layers * tokens + model.decoder_layers * written) + max(read, answered) + ends
    return model.layers * read + model.decoder_layers * answered + ends


def _logits(job: TrainingJob, model: Dimensions, tokens: int) -> int:
    """Scores, their logarithms and the gradient, float32; an evaluation holds two of these, for more sequences and no gradient.

    A causal model's are there for a chunk of tokens alone, in two copies, beside the gradient of the head's weights. TRL's losses of
    preferences hold them for all tokens, that of rewards for those of the replies.
    """
    if isinstance(job.objective, Rewarded):
        return 3 * 4 * model.vocabulary * job.micro_batch * job.objective.answer_tokens
    if isinstance(job.objective, Preference):
        return 3 * 4 * model.vocabulary * tokens
    if isinstance(job.objective, Causal | Conversation | Denoising | Answering):
        copies, sums = (2 * 4, 4) if job.hardware.precision.value == "float32" else (2 * 4 + 2, 4 + 2)  # and each product in bfloat16
        return model.vocabulary * (copies * CHUNK[job.hardware.device.value] + sums * model.hidden)
    if not isinstance(job.objective, Masked):
        return 0
    places = tokens * (job.objective.mask_probability if model.sparse else 1)
    return math.ceil(4 * model.vocabulary * places * max(3, 2 * EVALUATION))


def _gaps(*parts: tuple[int, int]) -> int:
    """Bytes of a CPU's heap between tensors; of each part all its bytes, and those of its largest tensors."""
    return int(GAPS * sum(size for size, tensor in parts if tensor < MAPPED))


def refuse_too_large(job: TrainingJob, processes: int, model: Dimensions, length: int, memory: int) -> Estimate:
    """The estimate. Raises ``MemoryRefusedError`` where it is more than ``ROOM`` of ``memory``, the bytes a process may have."""
    found = estimate(job, processes, model, length)
    if found.total <= ROOM * memory:
        return found
    shown = ", ".join(f"{name} {gib(size)}" for name, size in asdict(found).items() if size > 2**20)
    head = f"this training needs about {gib(found.total)} a process ({shown}); {gib(memory)} are there, of which {ROOM:.0%} may be planned"
    for change in _changes(job, processes):
        lighter = estimate(job.model_copy(update=change), processes, model, length)
        if lighter.total <= ROOM * memory:
            raise MemoryRefusedError(f"{head}. Smallest change that fits: {_words(change)} (about {gib(lighter.total)})")
    raise MemoryRefusedError(f"{head}. No setting makes it fit: take a smaller model or shorter sequences, or a device with more memory")


def _changes(job: TrainingJob, processes: int) -> Iterator[dict[str, Any]]:
    """Changes that lighten a job, from the least harm on: first what costs nothing, then recomputing, then traffic, alone and then together."""
    whole = job.objective.group if isinstance(job.objective, Rewarded) else 1
    sizes = [size for size in _divisors(job.micro_batch) if size % whole == 0]
    batches = [{"micro_batch": size, "accumulation": job.accumulation * (job.micro_batch // size)} for size in sizes]
    recompute: list[dict[str, Any]] = [] if job.activation_checkpointing else [{"activation_checkpointing": True}]
    stages: list[dict[str, Any]] = [{"zero_stage": stage} for stage in range(job.zero_stage + 1, 4)] if processes > 1 else []
    offload: list[dict[str, Any]] = []
    if job.hardware.device.value == "cuda":
        offload = [{"zero_stage": max(1, job.zero_stage), "offload_optimizer": "cpu"}]
        offload += [{"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}]
    yield from (*batches, *recompute, *stages, *offload)
    together: dict[str, Any] = {}
    for step in (batches, recompute, stages, offload):
        for change in step[-1:]:
            together = together | change
            yield together


def _divisors(size: int) -> list[int]:
    """Those below ``size``, the largest first."""
    return [part for part in range(size // 2, 0, -1) if size % part == 0]


def _words(change: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {str(value).lower()}" for key, value in change.items())


def gib(size: float) -> str:
    """Bytes for a person."""
    return f"{size / 2**30:.2f} GiB"


def memory_of(device: Mapping[str, Any], processes: int) -> int:
    """Bytes a process may have: a GPU's own, or its share of the host's."""
    return int(device["memory_bytes"]) if device["kind"] == "cuda" else int(device["memory_bytes"]) // processes
