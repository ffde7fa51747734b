"""A decoder's folder rounded for GPU hosts by llm-compressor: ``PYTHON -I llmcompressor_worker.py JOB.json``, started by ``compressed.py``.

Runs with the interpreter of the environment `compressed-tensors`, so it imports nothing of this package. Speaks JSON lines on standard output:
``{"done", "total", "unit"}`` as it works and ``{"made": figures}`` at the end; what the libraries print goes to standard error. Ends when
standard input does.

The job: ``model`` and ``output`` (folders), ``scheme`` (W8A8 or W4A16), ``calibration`` and ``texts`` (token ids of each), ``opening`` (the first
tokens of each text, which are not counted).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

GROUPS = (128, 64, 32)  # weights that share a scale in W4A16; of those that divide every matrix's rows the first, which vLLM's kernels know
VERSIONS = ("compressed-tensors", "llmcompressor", "torch", "transformers")


def main(path: Path, said: IO[str]) -> None:
    """Do the job."""
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    say(said, done=0, total=4, unit="steps")
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float16, local_files_only=True, use_safetensors=True)
    if torch.cuda.is_available():
        model = model.cuda()
    say(said, done=1, total=4, unit="steps")
    before = nats(model, job["texts"], job["opening"])
    say(said, done=2, total=4, unit="steps")
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["calibration"]]
    oneshot(
        model=model,
        processor=PreTrainedTokenizerFast.from_pretrained(job["model"], local_files_only=True),
        dataset=Dataset.from_list(rows),
        recipe=GPTQModifier(ignore=["lm_head"], **scheme(job["scheme"], model)),
        max_seq_length=max(map(len, job["calibration"])),
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
    )
    say(said, done=3, total=4, unit="steps")
    after = nats(model, job["texts"], job["opening"])
    model.save_pretrained(job["output"], save_compressed=True)
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    say(said, made={"nats_before": before, "nats_after": after, "device": str(model.device), "versions": versions})


def scheme(name: str, model: Any) -> dict[str, Any]:
    """llm-compressor's words for a scheme: its own preset, or its group made to fit matrices that 128 does not divide."""
    if name != "W4A16":
        return {"targets": "Linear", "scheme": name}
    widths = {module.in_features for part, module in model.named_modules() if hasattr(module, "in_features") and part != "lm_head"}
    group = next((size for size in GROUPS if all(width % size == 0 for width in widths)), None)
    shared = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    weights = {"num_bits": 4, "type": "int", "symmetric": True, **shared}
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def nats(model: Any, texts: list[list[int]], opening: int) -> float:
    """Minus the logarithm of the texts' probability, each but the tokens that open it, in all."""
    import torch

    total = 0.0
    for ids in texts:
        tokens = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            scores = model(input_ids=tokens).logits[0, opening - 1 : -1].double().log_softmax(-1)
        total -= float(scores.gather(1, tokens[0, opening:, None]).sum())
    return total


def say(said: IO[str], **line: Any) -> None:
    """Write a line of the protocol."""
    said.write(json.dumps(line) + "\n")
    said.flush()


def end_with_parent() -> None:
    """End this process when its standard input ends: nobody waits for it any more."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    threading.Thread(target=end_with_parent, daemon=True).start()
    main(Path(sys.argv[1]), lines)
