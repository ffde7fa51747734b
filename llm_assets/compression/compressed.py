"""Decoders as compressed-tensors, the form that vLLM serves on GPUs: rounded by llm-compressor in a process of its own environment.

W8A8 keeps weights and what goes into matrices in 8 bits, W4A16 the weights in 4 (GPTQ, Frantar et al. 2022, https://arxiv.org/abs/2210.17323):
rounding one weight is made up for by the others, as texts of the chain show they are used.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from llm_assets.store.files import write_json
from llm_assets.store.progress import Progress, silent

Scheme = Literal["w8a8", "w4a16"]
WORKER = "llm_assets.compression.llmcompressor_worker"  # run as a file; named so that the link counts it among its sources
LOG, JOB = "llmcompressor.log", "llmcompressor.json"  # beside each other in the scratch folder
TAIL = 15  # lines of the log in a message
GRACE = 8  # seconds that the worker has to end


class CompressionError(RuntimeError):
    """llm-compressor did not round a model; the message holds the end of its log."""


def compress(
    python: Path, model: Path, output: Path, scheme: Scheme, calibration: Sequence[Sequence[int]], texts: Sequence[Sequence[int]],
    scratch: Path, progress: Progress = silent, opening: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Round ``model`` into ``output`` with the interpreter ``python``, calibrated on token ids, and read ``texts`` before and after.

    The first ``opening`` tokens of each text are read and not counted. Returns the worker's figures: ``nats_before`` and ``nats_after`` of
    the texts in all, the ``device`` and the ``versions`` that did it.
    Raises ``CompressionError``; no process is left either way.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    given = {"model": str(model), "output": str(output), "scheme": scheme.upper(), "calibration": calibration, "texts": texts, "opening": opening}
    write_json(scratch / JOB, given)
    found: dict[str, Any] | None = None
    with (scratch / LOG).open("w", encoding="utf-8") as log:
        # -I: else a module beside the worker would be taken for a library of the same name, such as gguf
        command = [str(python), "-I", str(Path(__file__).with_name(f"{WORKER.rpartition('.')[2]}.py")), str(scratch / JOB)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=scratch)
        assert process.stdin and process.stdout
        try:
            found = _heard(process.stdout, progress)
            process.wait(GRACE)
        finally:
            with suppress(OSError):
                process.stdin.close()
            _end(process)
            (scratch / JOB).unlink(missing_ok=True)  # it holds conversations, as tokens in which `forget` finds no text
    if found is None or process.returncode:
        said = (scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        raise CompressionError(
            f"llm-compressor did not round {model} to {scheme} (status {process.returncode}); the end of {scratch / LOG}:\n" + "\n".join(said)
        )
    return found


def _heard(lines: Iterable[str], progress: Progress) -> dict[str, Any] | None:
    """The figures at the end of what the worker says; None where it says no such thing."""
    found: dict[str, Any] | None = None
    for line in lines:
        said = json.loads(line)
        if "made" in said:
            found = said["made"]
        else:
            progress(said["done"], said["total"], said["unit"])
    return found


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout
    process.stdout.close()
