from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm_assets.corpus.recogniser import ensemble, names, weights


def test_what_is_saved_is_read_again_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    sha256 = weights.save("names", {"step": np.array(0.5, np.float32)})
    assert sha256 == weights.save("names", {"step": np.array(0.5, np.float32)})
    assert float(weights.load("names", sha256)["step"]) == 0.5
    weights.save("names", {"step": np.array(0.6, np.float32)})
    with pytest.raises(ValueError, match="install the package again"):
        weights.load("names", sha256)


def test_the_shipped_weights_are_small_and_those_the_code_names() -> None:
    assert sum((weights.FOLDER / f"{name}.npz").stat().st_size for name in ("names", "networks")) <= 3_000_000
    regression, step = names._weights()
    assert regression.shape == (1 << names.BITS,) and regression.dtype == np.int8 and 0 < step < 1
    assert len(ensemble.shipped().networks) > 1 and ensemble.shipped().reader.layers and ensemble.shipped().filled.any()
