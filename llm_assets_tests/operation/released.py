"""A released classifier with all that watching it reads: the examples it learned from, its predictions, the journal of releases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm_assets.evaluation import predictions
from llm_assets.links.link import Office
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets.store.manifest import MANIFEST, InputEntry, Manifest, describe_files
from llm_assets_tests.serving.talking import write_model as write_decoder
from llm_assets_tests.serving.tiny import LABELS, write_model

BOOKS = ("good", "bad", "喜欢", "讨厌")  # words the model knows
STARTED = "2026-11-01T00:00:00+00:00"


def texts(count: int, seed: int, words: Sequence[str] = BOOKS, longest: int = 6) -> list[str]:
    """Sentences of two to ``longest`` words."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(words) for _ in range(rng.randint(2, longest))) for _ in range(count)]


def release(home: Path, examples: Sequence[str], number: int = 1, chain: str = "tiny", problem: str = "single_label") -> Artifact:
    """Release ``<chain>-<number>``: right on nine of ten validation documents, and as sure as that."""
    table = pa.table({"doc_id": [f"{n:020x}" for n in range(len(examples))], "text": list(examples), "label": ["positive"] * len(examples)})
    learned = home / "artifacts" / "labelled_examples" / f"e{number}"
    learned.mkdir(parents=True)
    pq.write_table(table, learned / "train.parquet")
    _commit(learned, "labelled_examples", {})
    model = write_model(home / "artifacts" / "quantized_model" / f"m{number}", problem=problem)
    rows = [
        {
            "model": QUANTIZED,
            "split": "validation",
            "doc_id": f"{n:020x}",
            "label": LABELS[n % 2] if n % 10 else LABELS[1 - n % 2],
            "predicted": LABELS[n % 2],
            "probabilities": [0.1, 0.9] if n % 2 else [0.9, 0.1],
        }
        for n in range(200)
    ]
    predictions.write(model / "predictions.parquet", rows)
    inputs = {"labelled_examples": InputEntry(link="labelled_examples", fingerprint=learned.name, data_version=learned.name)}
    artifact = _commit(model, "quantized_model", inputs)
    journal = Journal(home / "journal" / chain / "release.jsonl")
    record = {"release": f"{chain}-{number}", "number": number, "quantized_model": model.name, "directory": str(model.relative_to(home)), "files": {}}
    journal.append({"trial": False, "verdicts": [], "record": record})
    return artifact


def release_talking(home: Path, conversations: Sequence[Sequence[str]], number: int = 1, chain: str = "tiny") -> Artifact:
    """Release ``<chain>-<number>``, a decoder of random weights that was finetuned on these conversations; the first ten are validation's, too."""
    store = home / "artifacts"
    spoken = [[{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)] for turns in conversations]
    table = {"doc_id": [f"{n:020x}" for n in range(len(spoken))], "messages": spoken, "task": ["conversation"] * len(spoken)}
    learned, held, tuned = (store / link / f"{link[0]}{number}" for link in ("labelled_examples", "evaluation_sets", "finetuned_model"))
    for folder in (learned, held, tuned):
        folder.mkdir(parents=True)
    pq.write_table(pa.table({**table, "source": ["shop"] * len(spoken)}), learned / "train.parquet")
    split = ["validation" if n < 10 else "test" for n in range(20)]
    texts = ["\n".join(turns) for turns in conversations[:20]]
    pq.write_table(pa.table({"doc_id": table["doc_id"][:20], "text": texts, "label": ["shop"] * 20, "split": split}), held / "evaluation.parquet")
    _commit(learned, "labelled_examples", {}, {"sources": ["shop"]})
    _commit(held, "evaluation_sets", {})
    inputs = {folder.parent.name: InputEntry(link=folder.parent.name, fingerprint=folder.name, data_version="") for folder in (learned, held, tuned)}
    _commit(tuned, "finetuned_model", {"labelled_examples": inputs["labelled_examples"]})
    model = write_decoder(store / "quantized_model" / f"t{number}")
    artifact = _commit(model, "quantized_model", {name: inputs[name] for name in ("finetuned_model", "evaluation_sets")})
    record = {"release": f"{chain}-{number}", "number": number, "quantized_model": model.name, "directory": str(model.relative_to(home)), "files": {}}
    Journal(home / "journal" / chain / "release.jsonl").append({"trial": False, "verdicts": [], "record": record})
    return artifact


def office(home: Path, act: str, chain: str = "tiny") -> Office:
    """What an act of the chain works with, its folder made."""
    directory = home / "acts" / chain / act / "run"
    directory.mkdir(parents=True, exist_ok=True)
    return Office(chain, home, Journal(home / "journal" / chain / f"{act}.jsonl"), directory, "run")


def _commit(directory: Path, link: str, inputs: dict[str, InputEntry], config: dict[str, Any] | None = None) -> Artifact:
    manifest = Manifest(
        link=link, fingerprint=directory.name, data_version=directory.name, recipe={"config": config or {}}, inputs=inputs,
        files=describe_files(directory), licenses=[],
        metrics={}, libraries={}, code={}, host="test", started=STARTED, seconds=0, core_seconds=0, peak_memory_bytes=0,
    )  # fmt: skip
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return Artifact(directory, manifest)
