"""Decoders as GGUF, the file that llama.cpp runs: Llama-, Mistral-, Qwen2- and Qwen3-shaped checkpoints of Hugging Face.

Tensors pass one at a time, so a model needs the memory of its largest matrix, not of itself. Rounding is that of the `gguf`
package, which knows no K-quants. Llama rotates neighbouring halves of a head where transformers rotates its two ends, so the
rows of q and k change places for it (llama.cpp's `convert_hf_to_gguf.py`); Qwen's graphs there rotate as transformers does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llm_assets.corpus.vocabulary import QWEN2_PIECES
from llm_assets.store.files import flush_directory, flush_file
from llm_assets.training.adapters import UNMERGED, is_prefixed

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter, TensorNameMap
    from numpy.typing import NDArray

Format = Literal["f16", "q8_0", "q5_0", "q4_1", "q4_0"]
FORMATS: tuple[Format, ...] = get_args(Format)
Unrounded = Literal["f32"]  # to compare by: nobody serves it
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # transformers' model_type to GGUF's name
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
NUMPY: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}  # the formats that are no blocks


class ShapeError(ValueError):
    """A checkpoint that llama.cpp would not run, or would run as another model."""


@dataclass(frozen=True)
class Shape:
    """What the head of a GGUF file says of a decoder."""

    architecture: str
    layers: int
    width: int
    hidden: int
    heads: int
    key_value_heads: int
    head: int
    context: int
    vocabulary: int
    epsilon: float
    theta: float
    tied: bool

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """The shape in a folder's ``config.json``. Raises ``ShapeError`` naming the key that no graph of llama.cpp's here knows."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
        if config.get("is_encoder_decoder"):
            raise ShapeError(
                f"{folder}: model_type {kind} is an encoder-decoder, which is not served: the gateway gives llama.cpp one text to continue, and this "
                "model a source to read and an answer to write. Its scores and where it looked stand in finetuned_model, with which its chain ends"
            )
        if is_prefixed(folder):
            raise ShapeError(f"{folder}: {UNMERGED}")
        if kind not in ARCHITECTURES:
            raise ShapeError(f"{folder}: model_type {kind} is not written as GGUF here; these are: {', '.join(ARCHITECTURES)}")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        windowed = config.get("sliding_window") if config.get("use_sliding_window", kind == "mistral") else None
        refused = {
            "hidden_act": config.get("hidden_act", "silu") != "silu",
            "mlp_bias": bool(config.get("mlp_bias")),
            "rope_parameters": rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1) != 1,
            "sliding_window": windowed is not None and windowed < config["max_position_embeddings"],
            "quantization_config": "quantization_config" in config,
        }
        if wrong := [key for key, is_wrong in refused.items() if is_wrong]:
            raise ShapeError(f"{folder}: config.json says {wrong[0]}: {json.dumps(config[wrong[0]])}, which is not written as GGUF here")
        heads = config["num_attention_heads"]
        return cls(
            architecture=ARCHITECTURES[kind],
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            hidden=config["intermediate_size"],
            heads=heads,
            key_value_heads=config.get("num_key_value_heads") or heads,
            head=config.get("head_dim") or config["hidden_size"] // heads,
            context=config["max_position_embeddings"],
            vocabulary=config["vocab_size"],
            epsilon=config["rms_norm_eps"],
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            tied=bool(config.get("tie_word_embeddings")),
        )


def write_gguf(folder: Path, target: Path, kind: Format | Unrounded) -> None:
    """Write a decoder's folder (config.json, safetensors, tokenizer.json, tokenizer_config.json) as one GGUF file, whole or not at all.

    Matrices are rounded to ``kind``, those whose rows are no multiple of its block (32) to F16; norms and biases stay float32.
    ``f32`` rounds nothing.
    Raises ``ShapeError`` for a shape, a tensor or a tokenizer that llama.cpp would not read alike.
    """
    shape = Shape.read(folder)
    with new_file(target, shape.architecture) as writer:
        _describe(writer, shape, kind)
        _add_tokenizer(writer, folder, shape.vocabulary)
        _write_tensors(writer, folder, shape, kind)


@contextmanager
def new_file(target: Path, architecture: str) -> Iterator[GGUFWriter]:
    """A writer of ``target``, which is whole when the block ends; where the block raises it is what it was before."""
    import gguf

    temporary = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(temporary, architecture)
    try:
        yield writer
        writer.close()
        flush_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(target.parent)


def _describe(writer: GGUFWriter, shape: Shape, kind: Format | Unrounded) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: GGUFWriter, folder: Path, vocabulary: int) -> None:
    """The tokenizer as llama.cpp's ``gpt2``: pieces, merges, which tokens are special, which end a turn, the chat template.

    Tokens that are added without being special, the masks of personal data, are user-defined ones: found in a text before it is cut.
    """
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    pieces = {index: (token, NORMAL) for token, index in _byte_pairs(folder, described).items()}
    for added in described["added_tokens"]:
        pieces[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    if pieces and max(pieces) >= vocabulary:
        raise ShapeError(f"{folder}: the tokenizer has {max(pieces) + 1} entries, the model {vocabulary}: they are not of one training")
    tokens, kinds = zip(*(pieces.get(index, (f"[UNUSED{index}]", UNUSED)) for index in range(vocabulary)), strict=True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre(folder, described))
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(kinds))
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]])
    writer.add_add_bos_token(False)  # prompts come as ids, or from a template that opens them
    ids = {token: index for index, (token, _) in pieces.items()}
    roles = {"bos_token": writer.add_bos_token_id, "eos_token": writer.add_eos_token_id, "pad_token": writer.add_pad_token_id}
    for role, add in roles.items():
        token = settings.get(role)
        if token is not None:
            add(ids[token["content"] if isinstance(token, dict) else token])
    if suppressed := _suppressed(folder):
        writer.add_array("tokenizer.ggml.suppress_tokens", suppressed)  # llama.cpp's sampling never takes them
    if "<|im_end|>" in ids:
        writer.add_eot_token_id(ids["<|im_end|>"])
    if template := chat_template(folder):
        writer.add_chat_template(template)


def _suppressed(folder: Path) -> list[int]:
    """The tokens that ``generation_config.json`` says are no answer's."""
    settings = folder / "generation_config.json"
    found: list[int] | None = json.loads(settings.read_text(encoding="utf-8")).get("suppress_tokens") if settings.is_file() else None
    return found or []


def chat_template(folder: Path) -> str | None:
    """The Jinja template in a model's folder, from its own file or from ``tokenizer_config.json``; None where it has none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    template: str | None = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    return template


def _byte_pairs(folder: Path, described: Mapping[str, Any]) -> dict[str, int]:
    kind = described["model"].get("type", "BPE")
    if kind != "BPE" or described["model"].get("byte_fallback") or described.get("normalizer"):
        raise ShapeError(f"{folder}: the tokenizer is no byte-level BPE without a normaliser, which GGUF's gpt2 is: train one of kind byte_bpe")
    vocabulary: dict[str, int] = described["model"]["vocab"]
    return vocabulary


def _pre(folder: Path, described: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a text is cut before its merges. Raises ``ShapeError`` where it has another."""
    before = described.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    levels = [step for step in steps if step.get("type") == "ByteLevel" and not step.get("add_prefix_space")]
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if levels and len(steps) == 1 and levels[0].get("use_regex", True):
        return "gpt-2"
    if levels and len(steps) == 2 and patterns == [QWEN2_PIECES] and not levels[0].get("use_regex", True):
        return "qwen2"
    raise ShapeError(f"{folder}: the tokenizer cuts text neither as GPT-2 nor as Qwen2 does, so llama.cpp would cut it otherwise")


def _write_tensors(writer: GGUFWriter, folder: Path, shape: Shape, kind: Format | Unrounded) -> None:
    """Announce all tensors by their sizes, then read and write them one at a time in that order."""
    from gguf.quants import quant_shape_to_byte_shape, quantize

    names = tensor_names(shape)
    plan: dict[str, GGMLQuantizationType] = {}
    files = _files(folder)
    for name in sorted(files):
        if shape.tied and name == "lm_head.weight":
            continue  # llama.cpp takes the embeddings where there is no head
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ShapeError(f"{folder}: tensor {name} has no place in GGUF's {shape.architecture}")
        size = tensor_size(files[name], name)
        plan[name] = to = _rounding(size, kind)
        if to.name in NUMPY:
            dtype = NUMPY[to.name]
            writer.add_tensor_info(known, size, dtype, math.prod(size) * dtype.itemsize)
        else:
            blocks = quant_shape_to_byte_shape(size, to)
            writer.add_tensor_info(known, blocks, np.dtype(np.uint8), math.prod(blocks), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, to in plan.items():
        writer.write_tensor_data(quantize(permuted(name, read_tensor(files[name], name), shape), to))


def tensor_names(shape: Shape) -> TensorNameMap:
    """From transformers' names of a decoder's tensors to GGUF's."""
    import gguf

    return gguf.get_tensor_name_map(gguf.MODEL_ARCH[shape.architecture.upper()], shape.layers)


def _rounding(size: tuple[int, ...], kind: Format | Unrounded) -> GGMLQuantizationType:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(size) == 1:
        return GGMLQuantizationType.F32
    to = GGMLQuantizationType[kind.upper()]
    return to if size[-1] % GGML_QUANT_SIZES[to][0] == 0 else GGMLQuantizationType.F16


def permuted(name: str, tensor: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    """Rows of Llama's q and k from two halves a head to pairs; anything else as it is."""
    heads = {"q_proj": shape.heads, "k_proj": shape.key_value_heads}.get(name.split(".")[-2]) if shape.architecture == "llama" else None
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _files(folder: Path) -> dict[str, Path]:
    """By tensor the safetensors file that holds it. Raises ``ShapeError`` where there is none."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {name: folder / file for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ShapeError(f"{folder} holds no model.safetensors: GGUF is written from Hugging Face's form of a model")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def tensor_size(path: Path, name: str) -> tuple[int, ...]:
    """A tensor's shape, without reading it."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return tuple(file.get_slice(name).get_shape())


def read_tensor(path: Path, name: str) -> NDArray[np.float32]:
    """A tensor in float32, through torch since NumPy has no bfloat16."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensor: NDArray[np.float32] = file.get_tensor(name).float().numpy()
    return tensor
