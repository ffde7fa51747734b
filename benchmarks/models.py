"""How good the models of a data root's newest scorecard are; give it with --home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.result import Result

CHAIN = "reviews"


def finetuned(preset: str, home: Path) -> Result:
    """Test accuracy of the fine-tuned model over the majority baseline's, from the newest scorecard in --home."""
    models = _models(home)
    gain = models["finetuned"]["test_accuracy"] - models["majority"]["test_accuracy"]
    return Result("finetuned", round(gain, 4), "accuracy above majority", ">= 0.2", gain >= 0.2)


def quantized(preset: str, home: Path) -> Result:
    """Test accuracy that int8 loses against the float model, from the newest scorecard in --home."""
    models = _models(home)
    drop = models["finetuned"]["test_accuracy"] - models["quantized"]["test_accuracy"]
    size = models["finetuned"]["bytes"] / models["quantized"]["bytes"]
    print(f"int8 is {size:.2f} times smaller")
    return Result("quantized", round(drop, 4), "accuracy lost", "<= 0.01", drop <= 0.01)


def _models(home: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "llm_assets.cli", "scorecard", CHAIN, "--json"]
    environment = {**os.environ, "LLM_ASSETS_HOME": str(home)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    scorecard = json.loads(printed.stdout)
    for model in scorecard["models"]:
        print(f"  {model['name']:<28}{model['test_accuracy']:.4f}  {model['bytes']:>12,} bytes")
    return {model["name"]: model for model in scorecard["models"]}
