"""Where everything a run produces stands: the data root, and the environment that makes every tool agree on it."""

from __future__ import annotations

import os
import platform
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

# Each library asked to send nothing home and to say nothing below a warning; the names are theirs.
TELEMETRY_OFF: dict[str, str | None] = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above ``start`` (default: the working directory) that holds a ``dagster.yaml``.

    Falls back to the checkout this package stands in, then to the working directory.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dagster.yaml").is_file():
            return folder
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "dagster.yaml").is_file() else here


def data_root() -> Path:
    """The folder for artifacts, work, journals, Dagster and MLflow: ``LLM_ASSETS_HOME``, else ``data/`` in the project."""
    configured = os.environ.get("LLM_ASSETS_HOME")
    return Path(configured).expanduser().resolve() if configured else project_root() / "data"


def cache_root() -> Path:
    """The user's cache for downloaded archives: ``LLM_ASSETS_CACHE``, else ``$XDG_CACHE_HOME/llm_assets``."""
    configured = os.environ.get("LLM_ASSETS_CACHE")
    if configured:
        return Path(configured).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "llm_assets"


def host_name() -> str:
    """What manifests call this machine: ``LLM_ASSETS_HOST`` where its own name should not stand in them, else that."""
    return os.environ.get("LLM_ASSETS_HOST") or platform.node()


def prepare_environment() -> Path:
    """Set what Dagster and the libraries read from the environment, where the user has not; returns the data root.

    The same variables as the project's ``.env`` gives ``dg dev``, so a run from the command line and one from the UI
    meet in one instance; what else stands in ``.env`` is read too, and the environment wins over it.
    """
    if "LLM_ASSETS_HOME" in os.environ:  # a moved data root takes Dagster's storage along
        os.environ.setdefault("LLM_ASSETS_DAGSTER", str(data_root() / "dagster"))
    for name, value in (TELEMETRY_OFF | _env_file()).items():
        if value is not None:
            os.environ.setdefault(name, value)
    home = data_root()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("LLM_ASSETS_HOME", str(home))
    os.environ.setdefault("LLM_ASSETS_DAGSTER", str(home / "dagster"))
    os.environ.setdefault("DAGSTER_HOME", str(project_root()))
    Path(os.environ["LLM_ASSETS_DAGSTER"]).mkdir(parents=True, exist_ok=True)
    return home


def _env_file() -> dict[str, str | None]:
    """What the project's ``.env`` says, its ``${PWD}`` being the project's root wherever this process was started."""
    path = project_root() / ".env"
    if not path.is_file():
        return {}
    return dotenv_values(stream=StringIO(path.read_text(encoding="utf-8").replace("${PWD}", str(path.parent))))
