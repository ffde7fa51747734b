"""Where a path of the chain's YAML leads: the same file whoever runs the chain and wherever they stand."""

from __future__ import annotations

from pathlib import Path

from llm_assets.store.home import data_root, project_root


def roots() -> tuple[Path, Path]:
    """Where a relative path is looked up: first the data root, then the project root. Never the working directory, which
    is the data root for the services and anything for the command line.
    """
    return data_root(), project_root()


def local(place: str) -> Path | None:
    """The file or folder that a setting names, with its full path; None where there is none."""
    path = Path(place).expanduser()
    candidates = (root / path for root in roots())  # an absolute path replaces the root
    return next((candidate for candidate in candidates if candidate.exists()), None)
