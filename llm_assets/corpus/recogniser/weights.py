"""Reading trained weights: arrays in a file beside the code, whose hash the code names."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent


def load(name: str, sha256: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of ``<name>.npz``; other weights are other behaviour, so any other hash raises ``ValueError``."""
    import numpy as np

    path = FOLDER / f"{name}.npz"
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path} has sha256 {found}, not {sha256}: install the package again, or name the new weights in {name}.py")
    with np.load(BytesIO(content), allow_pickle=False) as file:
        return dict(file)


def save(name: str, arrays: dict[str, NDArray[np.generic]]) -> str:
    """Write ``<name>.npz`` and give its hash."""
    import numpy as np

    path = FOLDER / f"{name}.npz"
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return hashlib.sha256(path.read_bytes()).hexdigest()
