"""The finetuned decoder as GGUF files, one of which llama.cpp serves without torch; for GPU hosts also as compressed-tensors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from llm_assets.compression.compressed import Scheme, compress
from llm_assets.compression.gguf import FORMATS, Format, Shape, write_gguf
from llm_assets.compression.gguf_adapter import write_adapter
from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.environments.environment import COMPRESSED_TENSORS
from llm_assets.evaluation.greedy import Parting, partings
from llm_assets.links import pages, plots
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.task_adapters import adapter_folders
from llm_assets.serving.generation import TASK, Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.strict import Strict
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REFERENCE: Format = "f16"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
COLUMNS = ("bits_per_byte", "rise", "perplexity", "tokens_per_second", "bytes", "seconds")
ANSWER = 32  # tokens of a greedy answer that are compared
QUANTIZED = "quantized"
COMPRESSED = "compressed-tensors"  # the folder of those


class CompressedTensors(Strict):
    """What is written besides for GPU hosts, by llm-compressor in the environment `compressed-tensors` (`llm-assets env`)."""

    schemes: list[Scheme] = Field([], description="w8a8 (8 bits for weights and activations), w4a16 (4 for weights); vLLM serves the first named")
    calibration_conversations: int = Field(256, ge=1, description="training conversations, drawn by hash, that rounding errors are made up for on")


class GgufModelConfig(Section):
    """How the weights are rounded, and what that may cost."""

    formats: list[Format] = Field(list(FORMATS), min_length=1, description="what is written: f16, q8_0, q5_0, q4_1, q4_0")
    allowed_rise: float = Field(0.02, ge=0, description="share by which the bits per byte of held-out text may rise over F16")
    evaluation_texts: int = Field(100, ge=1, description="validation documents, drawn by hash, that each format is measured on")
    test_texts: int = Field(200, ge=1, description="test documents that what is served and F16 are read on, for the scorecard")
    compared_prompts: int = Field(20, ge=1, description="of them, whose greedy answers at F16 must be those of transformers")
    context: int | None = Field(None, ge=16, description="tokens of prompt and answer that are served; default: as many as the model was made for")
    compressed_tensors: CompressedTensors = Field(CompressedTensors(), description="the same model for GPU hosts, kept beside the GGUF files")

    def recipe(self) -> dict[str, Any]:
        """Without compressed-tensors what it was before there were any."""
        values = super().recipe()
        return values if self.compressed_tensors.schemes else {name: value for name, value in values.items() if name != "compressed_tensors"}

    def unread(self) -> tuple[str, ...]:
        """GGUF asks for no text to be calibrated on."""
        return () if self.compressed_tensors.schemes else ("labelled_examples",)


def quantized_model(
    bench: Bench,
    config: GgufModelConfig,
    finetuned_model: Artifact,
    evaluation_sets: Artifact,
    aligned_model: Artifact | None = None,
    labelled_examples: Artifact | None = None,
    task_adapters: Artifact | None = None,
) -> Made:
    """Writes the decoder as GGUF in each format asked for and takes the smallest whose bits per byte stay within the allowed rise.

    F16 is the reference: its greedy answers are compared with those of transformers over the same weights, and every format's
    bits per byte of held-out text are measured through llama.cpp, with the engine that will serve. Where no format stays
    within the rise the best is taken, and the check fails. Unlike an encoder's int8 the sizes are fixed by the format, so the
    rule is size, not speed; the measured speed is stated beside it. A chain with preferences rounds its aligned model. Adapters are
    written as GGUF beside it, not rounded, and their greedy answers at F16 compared with those of PEFT.
    Compressed-tensors, where asked for, are measured against their own beginning in float16, and no answer of theirs is compared.
    """
    model = finetuned_model if aligned_model is None else aligned_model
    python = COMPRESSED_TENSORS.python() if config.compressed_tensors.schemes else None
    texts = [text for _, text in evaluation_texts(evaluation_sets, "validation", config.evaluation_texts)]
    made_for = Shape.read(model.directory).context
    context = min(config.context or made_for, made_for)  # llama.cpp serves no more either
    formats: list[Format] = [kind for kind in FORMATS if kind in {*config.formats, REFERENCE}]
    candidates: dict[str, dict[str, float]] = {}
    adapters = {} if task_adapters is None else adapter_folders(task_adapters)
    found: list[Parting] = []
    for number, kind in enumerate(formats):
        bench.progress(number, len(formats), "formats")
        began, folder = time.perf_counter(), _folder(bench.scratch / kind, model, kind, context, adapters)
        write_gguf(model.directory, folder / file_of(kind), kind)
        seconds = time.perf_counter() - began
        with closing(Generator(folder, slots=1)) as engine:
            measured = measure(engine, texts)
            if kind == REFERENCE:
                prompts = [_asked(engine, text) for text in texts[: config.compared_prompts]]
                found = partings(model.directory, engine, prompts, ANSWER)
                for adapter in adapters.items():
                    found += partings(model.directory, engine, prompts, ANSWER, adapter)
        rise = measured["bits_per_byte"] / candidates.get(REFERENCE, measured)["bits_per_byte"] - 1
        candidates[kind] = {**measured, "rise": rise, "bytes": (folder / file_of(kind)).stat().st_size, "seconds": round(seconds, 3)}
    bench.progress(len(formats), len(formats), "formats")
    chosen = smallest({kind: candidates[kind] for kind in config.formats}, config.allowed_rise)
    for kind in config.formats:
        shutil.copyfile(bench.scratch / kind / file_of(kind), bench.directory / file_of(kind))
    for path in (bench.scratch / chosen).iterdir():
        shutil.copyfile(path, bench.directory / path.name)
    compressed = _compressed(bench, config.compressed_tensors, python, model, labelled_examples, texts, context) if python else {}
    if compressed:
        settings = json.loads((bench.directory / "serving.json").read_text(encoding="utf-8"))
        write_json(bench.directory / "serving.json", {**settings, "vllm": f"{COMPRESSED}/{next(iter(compressed))}"})
    _show(bench.directory, candidates, chosen, len(texts))
    _write_predictions(bench, evaluation_texts(evaluation_sets, "test", config.test_texts), {QUANTIZED: chosen, REFERENCE: REFERENCE})
    compared = min(len(texts), config.compared_prompts) * (1 + len(adapters))
    return Made(
        {
            "models": {QUANTIZED: candidates[chosen]},
            "format": chosen,
            "candidates": candidates,
            "greedy": {
                "prompts": compared,
                "equal": compared - len(found),
                "ties": sum(parting.is_tie for parting in found),
            },
            "evaluation_texts": len(texts),
            "times_smaller": round(candidates[REFERENCE]["bytes"] / candidates[chosen]["bytes"], 2),
            **({"compressed_tensors": compressed} if compressed else {}),
        }
    )


def file_of(kind: Format | str) -> str:
    """The name of a format's file."""
    return f"model-{kind}.gguf"


def adapter_file_of(name: str) -> str:
    """The name of an adapter's file."""
    return f"adapter-{name}.gguf"


def smallest(candidates: Mapping[str, Mapping[str, float]], allowed: float) -> str:
    """The smallest format whose ``rise`` is at most ``allowed``; where none is, the one that rises least."""
    within = [kind for kind, worth in candidates.items() if worth["rise"] <= allowed]
    if within:
        return min(within, key=lambda kind: candidates[kind]["bytes"])
    return min(candidates, key=lambda kind: candidates[kind]["rise"])


def evaluation_texts(evaluation_sets: Artifact, split: str, count: int) -> list[tuple[str, str]]:
    """At most ``count`` documents of a split, ``(doc_id, text)``: those of smallest hash. Raises ``ValueError`` where there is none."""
    rows = evaluation_sets.table("evaluation.parquet", ["doc_id", "text", "split"]).to_pylist()
    held = [row for row in rows if row["split"] == split]
    held.sort(key=lambda row: hashlib.sha256(f"gguf:{row['doc_id']}".encode()).digest())
    if not held:
        raise ValueError(f"evaluation_sets hold no {split} text to measure a format on: give them a larger {split}_share")
    return [(row["doc_id"], row["text"]) for row in held[:count]]


class Read(NamedTuple):
    """How likely a model found a text: minus the logarithms of its tokens' probabilities in all, its tokens, and the bytes they write."""

    nats: float
    tokens: int
    bytes: int


def readings(engine: Generator, texts: Sequence[str]) -> list[Read]:
    """Each text cut to the context and read from its beginning, without counting what opens it; a text of no token gives zeros."""
    from tokenizers import Tokenizer

    async def read() -> list[Read]:
        found, opening = [], max(1, len(engine.opening))
        spelt = Tokenizer.from_str(engine.tokenizer.to_str())
        spelt.encode_special_tokens = True
        for text in texts:
            ids = [*engine.opening, *spelt.encode(normalise(text), add_special_tokens=False).ids][: engine.context]
            counted = ids[opening:]
            nats = -sum(one.logprob for one in await engine.likelihood(ids, since=opening)) if counted else 0.0
            found.append(Read(nats, len(counted), len(engine.tokenizer.decode(counted, skip_special_tokens=False).encode())))
        return found

    return asyncio.run(read())


def measure(engine: Generator, texts: Sequence[str]) -> dict[str, float]:
    """Bits per byte and perplexity a token of all texts together; and tokens read a second."""
    began = time.perf_counter()
    nats, tokens, size = map(sum, zip(*readings(engine, texts), strict=True))
    return {
        "bits_per_byte": nats / math.log(2) / max(size, 1),
        "perplexity": math.exp(nats / max(tokens, 1)),
        "tokens_per_second": round(tokens / (time.perf_counter() - began), 1),
    }


def _write_predictions(bench: Bench, tested: Sequence[tuple[str, str]], models: Mapping[str, str]) -> None:
    """``predictions.parquet``: how likely the model that is served, and F16 beside it, found each test document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    doc_ids, texts = zip(*tested, strict=True)
    rows = []
    for number, (name, kind) in enumerate(models.items()):
        bench.progress(number, len(models), "test documents read")
        with closing(Generator(bench.scratch / kind, slots=1)) as engine:
            found = zip(doc_ids, readings(engine, texts), strict=True)
        rows += [{"model": name, "split": "test", "doc_id": doc_id, **one._asdict()} for doc_id, one in found if one.bytes]
    pq.write_table(pa.Table.from_pylist(rows), bench.directory / "predictions.parquet")


def read_predictions(quantized_model: Artifact, name: str) -> list[dict[str, Any]]:
    """The rows ``doc_id, nats, tokens, bytes`` of one model over the test documents."""
    table = quantized_model.table("predictions.parquet", ["model", "doc_id", "nats", "tokens", "bytes"])
    return [row for row in table.to_pylist() if row["model"] == name]


def _compressed(
    bench: Bench, asked: CompressedTensors, python: Path, model: Artifact, labelled_examples: Artifact | None, texts: Sequence[str], context: int
) -> dict[str, dict[str, Any]]:
    """Each scheme written into its folder, with what it costs in bits per byte of the validation documents."""
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.chat import Chat

    assert labelled_examples is not None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model.directory, local_files_only=True)
    rows = labelled_examples.table("train.parquet", ["doc_id", "messages"]).to_pylist()
    rows.sort(key=lambda row: hashlib.sha256(f"calibration:{row['doc_id']}".encode()).digest())
    conversations = [row["messages"] for row in rows[: asked.calibration_conversations]]
    chat = Chat(tokenizer)
    calibration = [one.ids for one in chat.encode(conversations, longest=context)]
    opening = [*chat.virtual, chat.opening]
    read = [ids for text in texts if len(ids := [*opening, *_encoded(tokenizer, text)][:context]) > len(opening)]
    size = sum(len(tokenizer.decode(ids[len(opening) :], skip_special_tokens=False).encode()) for ids in read)
    found: dict[str, dict[str, Any]] = {}
    for scheme in asked.schemes:
        began, folder = time.perf_counter(), bench.directory / COMPRESSED / scheme
        made = compress(python, model.directory, folder, scheme, calibration, read, bench.scratch / scheme, bench.progress, len(opening))
        for name in (*FILES, "generation_config.json"):
            shutil.copyfile(model.path(name), folder / name)
        found[scheme] = {
            "bits_per_byte": made["nats_after"] / math.log(2) / max(size, 1),
            "rise": made["nats_after"] / made["nats_before"] - 1,
            "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            "seconds": round(time.perf_counter() - began, 3),
            "device": made["device"],
            "versions": made["versions"],
        }
    return found


def _encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of a document, as in training."""
    ids: list[int] = tokenizer(normalise(text), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _asked(engine: Generator, text: str) -> list[int]:
    """A document's first line, asked as the user's turn."""
    return engine.chat([{"role": "user", "content": text.split("\n", 1)[0]}])[: engine.context - ANSWER]


def _folder(directory: Path, model: Artifact, kind: Format, context: int, adapters: Mapping[str, Path]) -> Path:
    """A folder with all that the serving engine reads but the model; ``adapters`` are PEFT's folders by name."""
    directory.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(model.path(name), directory / name)
    for name, adapter in adapters.items():
        write_adapter(model.directory, adapter, directory / adapter_file_of(name))
    beside = {"adapters": {name: adapter_file_of(name) for name in adapters}} if adapters else {}
    write_json(directory / "serving.json", {"task": TASK, "model": file_of(kind), "context": context, "normaliser": NORMALISER_VERSION, **beside})
    return directory


def _show(directory: Path, candidates: Mapping[str, Mapping[str, float]], chosen: str, documents: int) -> None:
    """The page `formats` and the plot `size`."""
    rows = [(f"{kind} (taken)" if kind == chosen else kind, *(f"{worth[name]:,.6g}" for name in COLUMNS)) for kind, worth in candidates.items()]
    note = f"On {documents} validation documents, read by llama.cpp; rise is against F16, seconds is what writing took."
    pages.table(directory, "formats", "Formats of GGUF", ("format", *COLUMNS), rows, note)
    plots.bars(directory, "size", {kind: worth["bytes"] / 1e6 for kind, worth in candidates.items()}, "Model size", "MB")


def _rise_within(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    allowed, metrics = artifact.manifest.recipe["config"]["allowed_rise"], artifact.metrics
    worth = metrics["candidates"][metrics["format"]]
    every = {metrics["format"]: worth, **metrics.get("compressed_tensors", {})}
    said = "; ".join(f"{name}: {one['bits_per_byte']:.4f} bits per byte, {100 * one['rise']:+.2f}% against F16" for name, one in every.items())
    passed = all(one["rise"] <= allowed for one in every.values())
    return Verdict(check="rise_within", passed=passed, description=f"{said} (at most {100 * allowed:+.2f}%)", values=dict(worth))


def _greedy_as_transformers(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    found = artifact.metrics["greedy"]
    said = f"at F16 {found['equal']} of {found['prompts']} greedy answers are those of transformers; {found['ties']} of the others part at a tie"
    return Verdict(check="greedy_as_transformers", passed=found["equal"] + found["ties"] == found["prompts"], description=said, values=found)


LINK = Link(
    name="quantized_model",
    variant="generation",
    version=2,
    make=quantized_model,
    config=GgufModelConfig,
    inputs=("finetuned_model", "aligned_model", "task_adapters", "evaluation_sets", "labelled_examples"),
    stage="model",
    role="programmer",
    kinds=("gguf",),
    checks=(
        Check("rise_within", "Rounding costs at most the allowed rise of the bits per byte on the validation split.", _rise_within),
        Check("greedy_as_transformers", "llama.cpp's greedy answers at F16 are those of transformers.", _greedy_as_transformers),
    ),
    trained=True,
    libraries=("gguf", "torch", "transformers", "xllamacpp"),
)
