"""`python -m benchmarks NAME [--preset P] [--home DIR]`: prints what is compared and the machine, and ends in one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.chain import orchestration, reuse
from benchmarks.completeness import completeness
from benchmarks.conversations import conversation_finetuning
from benchmarks.cuda import cuda
from benchmarks.decoders import bits, causal
from benchmarks.decoding import decoding
from benchmarks.distributed import resume, zero
from benchmarks.encoder_decoder import encoder_decoder
from benchmarks.endurance import endurance
from benchmarks.films import imdb
from benchmarks.greedy import greedy
from benchmarks.kills import kills
from benchmarks.latency import latency
from benchmarks.lineage import lineage
from benchmarks.loading import definitions
from benchmarks.loop import loop
from benchmarks.masking import masking
from benchmarks.memory import memory
from benchmarks.models import finetuned, quantized
from benchmarks.near_duplicates import leak, near_duplicates
from benchmarks.overhead import overhead
from benchmarks.packing import packing
from benchmarks.rollouts import canary, rollback
from benchmarks.rounding import rounding
from benchmarks.screening import screening, screening_english
from benchmarks.seeds import seeds
from benchmarks.service import service
from benchmarks.speed import finetuning, pretraining
from benchmarks.vocabularies import tokenizers
from benchmarks.watching import drift

FUNCTIONS = (
    definitions,
    orchestration,
    reuse,
    finetuned,
    quantized,
    seeds,
    imdb,
    rounding,
    latency,
    service,
    pretraining,
    finetuning,
    causal,
    cuda,
    bits,
    conversation_finetuning,
    encoder_decoder,
    screening,
    screening_english,
    near_duplicates,
    leak,
    packing,
    tokenizers,
    masking,
    decoding,
    greedy,
    lineage,
    completeness,
    overhead,
    memory,
    zero,
    resume,
    rollback,
    canary,
    endurance,
    kills,
    drift,
    loop,
)
BENCHMARKS = {function.__name__: function for function in FUNCTIONS}


def main() -> None:
    """Run one benchmark."""
    summaries = "\n".join(f"  {name:<24} {(function.__doc__ or '').splitlines()[0]}" for name, function in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=f"benchmarks:\n{summaries}", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--preset", default="tiny", help="preset of the chain reviews for benchmarks that run it (default: tiny)")
    parser.add_argument("--home", type=Path, help="data root to run in, kept for the next benchmark (default: a temporary one)")
    parser.add_argument("--amount", type=int, help="how much of it: seconds of endurance (default: 600), kills of kills (default: 1000)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    function = BENCHMARKS[arguments.name]
    if arguments.amount and function not in (endurance, kills):
        parser.error("--amount is for endurance and kills")
    print((function.__doc__ or "").strip())
    print(f"machine: {os.cpu_count()} x {_processor()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        amount = [arguments.amount] if arguments.amount else []
        print(json.dumps(asdict(function(arguments.preset, home, *amount)), ensure_ascii=False))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
