"""Encoding and packing against `datasets.map` and bare `tokenizers`: `python -m benchmarks.packing WAY FOLDER CORES` times one of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.material import artifact, batches, bench, corpus, megabytes, news, reviews
from benchmarks.result import Result
from benchmarks.timing import cores, timed, use_cores
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.links.mixture import is_validation
from llm_assets.links.packing import encode, pack
from llm_assets.links.tokenizer import TokenizerConfig, load, tokenizer
from llm_assets.links.tokens import TokensConfig, tokens

ROUNDS, RUNS = 3, 2  # processes of each way, taking turns so that what else the machine does meets all alike; runs in each; the fastest counts
CONTEXT = 128
TARGET, BARE_TARGET = 2.4, 0.9


def packing(preset: str, home: Path) -> Result:
    """The link tokens, against datasets.map that concatenates and chunks, and against encode_batch alone; one core, then all.

    Each way runs in a process of its own over the same documents with the same tokenizer of 8,192 entries; the fastest of 6 runs counts.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = list(dict.fromkeys(text for batch in batches([*reviews(), *news()]) for text in clean_texts(batch).texts if text))
        tokenizer(bench(folder / "tokenizer"), TokenizerConfig(), corpus(texts, folder / "clean_corpus"))
        size = megabytes(texts)
        print(f"{len(texts):,} different documents, {size:.1f} MB of text, blocks of {CONTEXT}")
        speeds = {count: _speeds(folder, count, size) for count in sorted({1, cores()})}
    heads = [head for count in speeds for head in (f"{count} core{'s' * (count > 1)}", "a core-second")]
    print(f"{'MB a second':<58}" + "".join(f"{head:>15}" for head in heads))
    for way, (_, summary) in WAYS.items():
        figures = [figure for found in speeds.values() for figure in (found[way].wall, found[way].core)]
        print(f"{summary:<58}" + "".join(f"{figure:>15.2f}" for figure in figures))
    times = min(found["pack"].wall / max(found["map"].wall, found["map_processes"].wall) for found in speeds.values())
    share = min(found["pack"].wall / found["encode_batch"].wall for found in speeds.values())
    print(f"encode and pack: at least {times:.2f} times the faster datasets.map, {share:.2f} of encode_batch alone")
    target = f"at least {TARGET}, and {BARE_TARGET} of encode_batch alone"
    return Result("packing", round(times, 2), "times datasets.map", target, times >= TARGET and share >= BARE_TARGET)


class Speed(NamedTuple):
    """Megabytes a second of wall clock, and a second of processor time, which other work on the machine hardly changes."""

    wall: float
    core: float


def _speeds(folder: Path, count: int, size: float) -> dict[str, Speed]:
    """The best of each way on so many cores."""
    rounds = [{way: _seconds_apart(way, folder, count) for way in WAYS} for _ in range(ROUNDS)]
    return {way: Speed(*(size / min(figures) for figures in zip(*(seconds[way] for seconds in rounds), strict=True))) for way in WAYS}


def _link(folder: Path) -> Callable[[], object]:
    return lambda: tokens(_new_bench(folder), TokensConfig(context=CONTEXT), _corpus(folder), artifact("tokenizer", folder / "tokenizer"))


def _pack(folder: Path) -> Callable[[], object]:
    import numpy as np

    encoder, config = load(folder / "tokenizer"), TokensConfig(context=CONTEXT)
    padding = int(encoder.token_to_id("[PAD]") or 0)

    def work() -> None:
        bench = _new_bench(folder)
        encoded = encode(bench, _corpus(folder), encoder)
        pack(encoded, np.array([is_validation(name.decode(), config.validation_share) for name in encoded.names]), CONTEXT, padding, bench)

    return work


def _map(folder: Path, processes: int | None = None) -> Callable[[], object]:
    """Encode, then join a batch's documents and cut them into blocks, as the examples for masked language models do; both write Arrow."""
    from datasets import Dataset, disable_progress_bars
    from datasets.utils.logging import set_verbosity_error
    from transformers import PreTrainedTokenizerFast

    disable_progress_bars()
    set_verbosity_error()  # it warns at every start that its processes encode on one thread each
    encoder = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)
    texts = Dataset.from_parquet(str(folder / "clean_corpus" / "documents.parquet"), cache_dir=tempfile.mkdtemp(dir=folder))
    settings: dict[str, Any] = {"batched": True, "num_proc": processes, "load_from_cache_file": False}

    def numbers(batch: Mapping[str, list[str]]) -> Mapping[str, Any]:
        encoded: Mapping[str, Any] = encoder(batch["text"], return_special_tokens_mask=True)
        return encoded

    def blocks(batch: Mapping[str, list[list[int]]]) -> Mapping[str, list[list[int]]]:
        joined = {name: list(chain.from_iterable(values)) for name, values in batch.items()}
        end = len(joined["input_ids"]) // CONTEXT * CONTEXT
        return {name: [values[start : start + CONTEXT] for start in range(0, end, CONTEXT)] for name, values in joined.items()}

    return lambda: texts.map(numbers, remove_columns=texts.column_names, **settings).map(blocks, **settings)


def _map_processes(folder: Path) -> Callable[[], object]:
    return _map(folder, cores())


def _encode_batch(folder: Path) -> Callable[[], object]:
    encoder, texts = load(folder / "tokenizer"), _texts(folder)
    return lambda: encoder.encode_batch(texts)


def _encode_batch_fast(folder: Path) -> Callable[[], object]:
    encoder, texts = load(folder / "tokenizer"), _texts(folder)
    return lambda: encoder.encode_batch_fast(texts)


WAYS: Mapping[str, tuple[Callable[[Path], Callable[[], object]], str]] = {
    "link": (_link, "the link whole: index, figures and pages too"),
    "pack": (_pack, "its encode and pack, from Parquet to tokens.bin"),
    "map": (_map, "datasets.map twice, in this process, Arrow to Arrow"),
    "map_processes": (_map_processes, "datasets.map twice, num_proc = cores, Arrow to Arrow"),
    "encode_batch": (_encode_batch, "tokenizers' encode_batch alone, strings to memory"),
    "encode_batch_fast": (_encode_batch_fast, "tokenizers' encode_batch_fast, the same without offsets"),
}


def _seconds_apart(way: str, folder: Path, count: int) -> tuple[float, ...]:
    """Least wall and processor seconds of the way in a process of its own on so many cores. Raises ``CalledProcessError`` when it fails."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(count), "TOKENIZERS_PARALLELISM": "true" if count > 1 else "false"}
    command = [sys.executable, "-m", "benchmarks.packing", way, str(folder), str(count)]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return tuple(map(float, printed.splitlines()[-1].split()))


def _measure(work: Callable[[], object]) -> tuple[float, float]:
    before = sum(os.times()[:4])  # of this process and the children it waited for
    _, seconds = timed(work)
    return seconds, sum(os.times()[:4]) - before


def _corpus(folder: Path) -> Any:
    return artifact("clean_corpus", folder / "clean_corpus")


def _texts(folder: Path) -> list[str]:
    return list(_corpus(folder).table("documents.parquet")["text"].to_pylist())


def _new_bench(folder: Path) -> Any:
    return bench(Path(tempfile.mkdtemp(dir=folder)) / "bench")


if __name__ == "__main__":
    use_cores(int(sys.argv[3]))
    way, _ = WAYS[sys.argv[1]]
    work = way(Path(sys.argv[2]))
    print(*(min(figures) for figures in zip(*(_measure(work) for _ in range(RUNS)), strict=True)))
