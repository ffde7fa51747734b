"""How good the models of the newest scorecard are; run the chain with the preset first."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.result import Result

CHAIN = "reviews"


def finetuned(preset: str) -> Result:
    """Test accuracy of the fine-tuned model over the majority baseline's, from the newest scorecard in the data root."""
    models = _models()
    gain = models["finetuned"]["test_accuracy"] - models["majority"]["test_accuracy"]
    return Result("finetuned", round(gain, 4), "accuracy above majority", ">= 0.2", gain >= 0.2)


def quantized(preset: str) -> Result:
    """Test accuracy that int8 loses against the float model, from the newest scorecard in the data root."""
    models = _models()
    drop = models["finetuned"]["test_accuracy"] - models["quantized"]["test_accuracy"]
    size = models["finetuned"]["bytes"] / models["quantized"]["bytes"]
    print(f"int8 is {size:.2f} times smaller")
    return Result("quantized", round(drop, 4), "accuracy lost", "<= 0.01", drop <= 0.01)


def _models() -> dict[str, Any]:
    printed = subprocess.run([sys.executable, "-m", "llm_assets.cli", "scorecard", CHAIN, "--json"], capture_output=True, text=True, check=True)
    scorecard = json.loads(printed.stdout)
    for model in scorecard["models"]:
        print(f"  {model['name']:<28}{model['test_accuracy']:.4f}  {model['bytes']:>12,} bytes")
    return {model["name"]: model for model in scorecard["models"]}
