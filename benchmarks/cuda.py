"""Training on this machine's GPU: `python -m benchmarks.cuda` prints how fast its bfloat16 matrix products are, in a process that is gone after."""

from __future__ import annotations

import json
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Decoders(Path(temporary), (CONTEXT,))
        base, billion, masked = (_decoder(folder, shape) for shape in (BASE, BILLION, ENCODER))
        runs = {
            "llama 85M, ZeRO-1": (BASE, _run(folder, devices, "base", base, micro_batch=32)),
            "llama 85M, ZeRO-0": (BASE, _run(folder, devices, "base-0", base, micro_batch=32, zero_stage=0)),
            "llama 85M, ZeRO-3": (BASE, _run(folder, devices, "base-3", base, micro_batch=32, zero_stage=3)),
            "llama 85M, Muon, float32": (BASE, _run(folder, devices, "muon", base, micro_batch=16, zero_stage=0, optimizer="muon")),
            "llama 1B, ZeRO-1": (BILLION, _run(folder, devices, "billion", billion, micro_batch=8)),
            "llama 1B, recomputing": (BILLION, _run(folder, devices, "recomputing", billion, micro_batch=32, activation_checkpointing=True)),
            "ModernBERT 78M, masked": (None, _run(folder, devices, "masked", masked, micro_batch=32)),
        }
        operations = {shape: folder.operations(CONTEXT, shape) for shape in (BASE, BILLION)}
        fastest = _said()["tflops"]
    print(f"bfloat16 product of {MATRIX} rows: {fastest:.0f} TFLOP/s")
    print(f"{'':<26}{'tokens/s':>12}{'of the peak':>13}{'foreseen':>12}{'used':>12}{'by torch':>12}{'ratio':>8}")
    shares, ratios = {}, []
    for name, (shape, run) in runs.items():
        shares[name] = 0.0 if shape is None else run.tokens_per_second * operations[shape] / 1e12 / fastest
        ratios.append(run.foreseen / run.used)
        sizes = "".join(f"{size / 2**30:>8.2f} GiB" for size in (run.foreseen, run.used, run.reserved))
        print(f"{name:<26}{run.tokens_per_second:>12,.0f}{f'{shares[name]:.2f}' if shape else '-':>13}{sizes}{ratios[-1]:>8.2f}")
    share = shares["llama 1B, ZeRO-1"]
    target = f"at least {OF_PEAK}; memory foreseen {LEAST} to {MOST} of that used ({min(ratios):.2f} to {max(ratios):.2f})"
    holds = share >= OF_PEAK and min(ratios) >= LEAST and max(ratios) <= MOST
    return Result("cuda", round(share, 3), "of the bfloat16 peak, a decoder of a billion weights", target, holds)


def _decoder(folder: Decoders, shape: DecoderShape | ModelShape) -> dict[str, Any]:
    tokens = folder.tokens(CONTEXT)
    return {"shape": shape, "objective": Causal(tokens=tokens) if isinstance(shape, DecoderShape) else Masked(tokens=tokens)}


def _run(folder: Decoders, devices: list[dict[str, Any]], name: str, parts: dict[str, Any], **settings: Any) -> Run:
    """One training of ``STEPS`` updates."""
    scratch = folder.folder / name
    scratch.mkdir()
    asked = TrainingJob(
        tokenizer=folder.tokenizer, output=scratch / "out", scratch=scratch, steps=STEPS, evaluate_every=STEPS, seed=17, learning_rate=3e-4,
        device="cuda", checkpoint_seconds=1e9, **parts, **settings,
    )  # fmt: skip
    flight = preflight(asked, 1, devices)
    assert flight.estimate is not None
    with _Used() as used:
        launch(flight.job.write(scratch / "job.json"), 1, silent)
    summary = json.loads((scratch / "summary.json").read_text(encoding="utf-8"))
    return Run(speed(flight.job), flight.estimate.total, summary["memory_measured_bytes"], used.most - used.before)


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
