"""Training on this machine's GPU: `python -m benchmarks.cuda` prints how fast its bfloat16 matrix products are, in a process that is gone after."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decoders import Decoders, speed
from benchmarks.result import Result
from llm_assets.links.compute import gpus
from llm_assets.store.progress import silent
from llm_assets.training.decoders import DecoderShape
from llm_assets.training.job import Causal, Masked, ModelShape, TrainingJob
from llm_assets.training.launch import launch
from llm_assets.training.preflight import preflight

CONTEXT, STEPS = 1024, 24
MATRIX, PRODUCTS = 8192, 30  # rows and columns, and products in a row; a third of them warms up
LOOK = 0.1  # seconds between two looks at the GPU's memory
OF_PEAK, LEAST, MOST = 0.3, 1.0, 1.5  # targets: share of the peak at a billion weights, and memory foreseen over memory used
BASE = DecoderShape(architecture="llama", hidden=768, layers=12, heads=12, key_value_heads=12, intermediate=2048)  # the size large
BILLION = DecoderShape(architecture="llama", hidden=2048, layers=20, heads=16, key_value_heads=16, intermediate=5632)
ENCODER = ModelShape(hidden=768, layers=12, heads=12, intermediate=1152)
RUNS: dict[str, tuple[DecoderShape | ModelShape, dict[str, Any]]] = {
    "llama-85M": (BASE, {"micro_batch": 32}),
    "llama-85M-muon-float32": (BASE, {"micro_batch": 16, "zero_stage": 0, "optimizer": "muon"}),
    "llama-1B": (BILLION, {"micro_batch": 8}),
    "llama-1B-recomputing": (BILLION, {"micro_batch": 32, "activation_checkpointing": True}),
    "modernbert-60M-masked": (ENCODER, {"micro_batch": 32}),
}


@dataclass(frozen=True)
class Run:
    """What one training gave."""

    tokens_per_second: float
    foreseen: int  # bytes
    reserved: int  # by torch
    used: int  # on the device, the CUDA context and NCCL's buffers with it


def cuda(preset: str, home: Path) -> Result:
    """Training on this machine's GPU: tokens a second, share of its measured bfloat16 peak, and memory foreseen over memory used.

    Llamas of 85 million and of a billion weights in their layers, and a ModernBERT, on Chinese news and reviews in blocks of 1,024 tokens, one
    process in bfloat16. Matrix products executed: 6 operations a weight and token in the layers and in the head on predicted tokens, and
    attention's own inside documents (recomputed ones do not count), over the speed of torch's product of two random bfloat16 matrices of 8,192
    rows. Memory used is what the driver says during the training less what it said before, so nothing else may use the GPU.
    """
    devices = gpus()
    if not devices:
        print("no CUDA device was found here (nvidia-smi lists none): nothing is measured")
        return Result("cuda", 0.0, "of the bfloat16 peak: there is no CUDA device", f"at least {OF_PEAK}", False)
    print(f"GPU: {devices[0]['name']}, {devices[0]['memory_bytes'] / 2**30:.1f} GiB, torch {_version()}")
    fastest = _said()["tflops"]
    print(f"bfloat16 product of {MATRIX} rows: {fastest:.0f} TFLOP/s")
    print(f"{'':<26}{'tokens/s':>12}{'of the peak':>13}{'foreseen':>12}{'used':>12}{'by torch':>12}{'ratio':>8}")
    shares, ratios = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Decoders(Path(temporary), (CONTEXT,))
        for name, (shape, settings) in RUNS.items():
            run = _run(folder, devices, name, shape, settings)
            ratios.append(run.foreseen / run.used)
            if isinstance(shape, DecoderShape):
                shares[name] = run.tokens_per_second * folder.operations(CONTEXT, shape) / 1e12 / fastest
            share = f"{shares[name]:.3f}" if name in shares else "-"
            sizes = "".join(f"{size / 2**30:>8.2f} GiB" for size in (run.foreseen, run.used, run.reserved))
            print(f"{name:<26}{run.tokens_per_second:>12,.0f}{share:>13}{sizes}{ratios[-1]:>8.2f}", flush=True)
    reached = shares["llama-1B"]
    target = f"at least {OF_PEAK}; memory foreseen {LEAST} to {MOST} of that used ({min(ratios):.2f} to {max(ratios):.2f})"
    holds = reached >= OF_PEAK and min(ratios) >= LEAST and max(ratios) <= MOST
    return Result("cuda", round(reached, 3), "of the bfloat16 peak, a decoder of a billion weights", target, holds)


def _run(folder: Decoders, devices: list[dict[str, Any]], name: str, shape: DecoderShape | ModelShape, settings: dict[str, Any]) -> Run:
    """One training of ``STEPS`` updates."""
    scratch, tokens = folder.folder / name, folder.tokens(CONTEXT)
    scratch.mkdir()
    asked = TrainingJob(
        objective=Causal(tokens=tokens) if isinstance(shape, DecoderShape) else Masked(tokens=tokens), tokenizer=folder.tokenizer, shape=shape,
        output=scratch / "out", scratch=scratch, steps=STEPS, evaluate_every=STEPS, seed=17, learning_rate=3e-4, device="cuda",
        checkpoint_seconds=1e9, **settings,
    )  # fmt: skip
    flight = preflight(asked, 1, devices)
    assert flight.estimate is not None
    with _Used() as used:
        launch(flight.job.write(scratch / "job.json"), 1, silent)
    summary = json.loads((scratch / "summary.json").read_text(encoding="utf-8"))
    found = speed(flight.job)
    shutil.rmtree(scratch / "out")  # 4 GB of a billion weights
    return Run(found, flight.estimate.total, summary["memory_measured_bytes"], used.most - used.before)


class _Used:
    """The most memory of the first GPU that is used while this stands, in bytes."""

    def __enter__(self) -> _Used:
        self.before = self.most = _used()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK):
            self.most = max(self.most, _used())


def _used() -> int:
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20


def _version() -> str:
    from importlib import metadata

    return metadata.version("torch")


def _said() -> dict[str, float]:
    printed = subprocess.run([sys.executable, "-m", "benchmarks.cuda"], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(printed.stdout.strip().splitlines()[-1])
    return found


def peak() -> float:
    """Trillions of operations a second of bfloat16 matrix products in a row; random numbers, since zeros run faster."""
    import torch

    one, other = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for number in range(PRODUCTS):
        if number == PRODUCTS // 3:
            begin.record()
        one @ other
    end.record()
    torch.cuda.synchronize()
    return 2 * MATRIX**3 * (PRODUCTS - PRODUCTS // 3) / (begin.elapsed_time(end) / 1e3) / 1e12


if __name__ == "__main__":
    print(json.dumps({"tflops": peak()}))
