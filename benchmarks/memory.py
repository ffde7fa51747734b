"""How the peak memory of the corpus links grows with the text: `python -m benchmarks.memory LINK FOLDER` makes one of them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.material import labelled, no_launch
from benchmarks.result import Result

LINKS = ("raw_corpus", "screened_corpus", "evaluation_sets", "clean_corpus", "tokenizer", "tokens", "labelled_examples")
SIZES = (10, 100)  # megabytes
FULL_SIZES = (*SIZES, 1000)
LIMIT = 200  # bytes a document
NOISE = 0.5  # share of characters exchanged: two copies of a line then share about one trigram in fifteen
SAMPLE_SECONDS = 0.05
SEED = 17


@dataclass(frozen=True)
class Cost:
    """What one link took: the peaks are of its process and all that it started, summed."""

    seconds: float
    resident: int  # bytes
    private: int  # bytes that are no pages of mapped files, which the kernel may drop


def memory(preset: str, home: Path) -> Result:
    """Bytes of peak memory that a document costs each corpus link, between the two largest sizes, against 200.

    Reviews are multiplied with seeded noise to 10 and 100 MB, with the preset full to 1000 MB too; only the real lines
    carry labels. Each link is made, checks included, in a process of its own. Pages of mapped files (tokens.bin) are
    shown and not counted: the kernel takes them back when it needs room.
    """
    return measure(FULL_SIZES if preset == "full" else SIZES, home)


def measure(sizes: tuple[int, ...], home: Path) -> Result:
    """The benchmark at any ascending sizes in megabytes, two at least."""
    documents: list[int] = []
    costs: dict[str, list[Cost]] = {link: [] for link in LINKS}
    home.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=home, prefix="memory-") as temporary:
            folder = Path(temporary)
            documents.append(_write(folder / "text.jsonl", size * 1_000_000))
            for link in LINKS:
                cost = _made_apart(link, folder)
                costs[link].append(cost)
                print(f"  {size:>5} MB {link:<20}{cost.seconds:>8.1f} s{cost.private / 1e6:>8.0f} MB", flush=True)
    more = documents[-1] - documents[-2]
    print(f"{'peak of process and children, MB':<34}" + "".join(f"{f'{size} MB':>10}" for size in sizes) + "   bytes a document, with mapped files")
    print(f"{'documents':<34}" + "".join(f"{count:>10,}" for count in documents))
    grown: dict[str, float] = {}
    for link, found in costs.items():
        grown[link] = (found[-1].private - found[-2].private) / more
        resident = (found[-1].resident - found[-2].resident) / more
        print(f"{link:<34}" + "".join(f"{cost.private / 1e6:>10.0f}" for cost in found) + f"{grown[link]:>19.0f}{resident:>19.0f}")
    worst = max(grown, key=lambda link: grown[link])
    return Result("memory", round(grown[worst], 1), f"bytes a document ({worst})", f"<= {LIMIT}", grown[worst] <= LIMIT)


def _write(path: Path, size: int) -> int:
    """Write the different reviews with their labels, then noisy copies without, up to ``size`` bytes of text; returns the documents."""
    texts = dict(labelled())
    alphabet = "".join(texts)
    rng = random.Random(SEED)
    documents = written = 0
    with path.open("w", encoding="utf-8") as file:
        for record in _records(texts, alphabet, rng):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            documents, written = documents + 1, written + len(record["text"].encode())
            if written >= size:
                return documents
    raise AssertionError("unreachable: the copies have no end")


def _records(texts: dict[str, str], alphabet: str, rng: random.Random) -> Iterator[dict[str, str]]:
    for text, label in texts.items():
        yield {"text": text, "label": label}
    while True:
        for text in texts:
            drawn = rng.choices(alphabet, k=len(text))
            yield {"text": "".join(new if rng.random() < NOISE else old for new, old in zip(drawn, text, strict=True))}


def _made_apart(link: str, folder: Path) -> Cost:
    """Make the link in a process of its own, watched from outside. Raises ``CalledProcessError`` when it fails."""
    import psutil

    started = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.memory", link, str(folder)]
    resident = private = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            process = psutil.Process(child.pid)
            while child.poll() is None:
                total, own = _held(process)
                resident, private = max(resident, total), max(private, own)
                time.sleep(SAMPLE_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(time.perf_counter() - started, resident, private)


def _held(process: Any) -> tuple[int, int]:
    """Resident bytes of the process and its children, and those that are no pages of files (macOS does not tell: all)."""
    import psutil

    total = own = 0
    try:
        for member in (process, *process.children(recursive=True)):
            held = member.memory_info()
            total, own = total + held.rss, own + held.rss - getattr(held, "shared", 0)
    except psutil.Error:  # one ended while we looked: the next sample is soon
        return 0, 0
    return total, own


def _make(name: str, folder: Path) -> None:
    """Make the link from what the folder holds, with the section of the chain reviews and its sources exchanged."""
    import yaml

    from llm_assets.links import chain
    from llm_assets.links.making import make
    from llm_assets.store.store import Store

    defs = Path(chain.__file__).parents[1] / "defs" / "reviews" / "defs.yaml"
    section: dict[str, Any] = yaml.safe_load(defs.read_text(encoding="utf-8"))["attributes"].get(name, {})
    source: dict[str, Any] = {"name": "reviews", "kind": "files", "path": str(folder / "text.jsonl"), "license": "MIT", "language": "zh"}
    if name == "raw_corpus":
        section["sources"] = [source | {"columns": {"label": "label"}}]
    if name == "evaluation_sets":
        section["sources"] = ["reviews"]
    link, store = chain.LINKS[name], Store(folder)
    inputs = {needed: store.open(needed, next(fingerprint for _, fingerprint in store.names(needed))) for needed in link.inputs}
    make(store, link, link.config.model_validate(section), inputs, seed=SEED, launch=no_launch)


if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
