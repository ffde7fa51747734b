"""NOT llm-compressor: a stand-in for the worker that the environment `compressed-tensors` runs, to test what the link makes of its answers.

Run as that worker is: ``python -I llmcompressor_worker.py JOB.json``, where python is a script that starts this. Copies the model unrounded
and says that a hundredth of a nat was lost on each nat.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def main() -> None:
    job = json.loads(Path(sys.argv[-1]).read_text())
    print(json.dumps({"done": 1, "total": 4, "unit": "steps"}), flush=True)
    output = Path(job["output"])
    output.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(Path(job["model"]) / name, output / name)
    before = float(sum(len(ids) - job["opening"] for ids in job["texts"]))
    figures = {"nats_before": before, "nats_after": 1.01 * before, "device": "stand-in", "versions": {"llmcompressor": "none"}}
    print(json.dumps({"made": {**figures, "calibrated_on": len(job["calibration"])}}), flush=True)


if __name__ == "__main__":
    main()
