"""What the endpoint asset and the gateway tell each other: the desired releases, and the gateway's own state."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from llm_assets.store.files import write_json
from llm_assets.store.journal import now

DEFAULT_URL = "http://127.0.0.1:8000"  # where `up` and `serve` put the gateway unless told otherwise


@dataclass(frozen=True)
class Desired:
    """The release a chain should serve."""

    chain: str
    release: str
    fingerprint: str  # of the quantized model
    directory: str  # of its files: below the data root where that holds them, else absolute
    files: Mapping[str, str]  # name -> SHA-256 of each file that is served
    at: str  # when it was asked for, UTC, ISO 8601


def desired_folder(home: Path) -> Path:
    """One ``<chain>.json`` for each chain that is to be served."""
    return home / "serving" / "desired"


def write_desired(home: Path, chain: str, release: Mapping[str, Any]) -> Desired:
    """Ask the gateway for a release, given as the release link's record."""
    desired = Desired(chain, release["release"], release["quantized_model"], release["directory"], dict(release["files"]), now())
    write_json(desired_folder(home) / f"{chain}.json", asdict(desired))
    return desired


def read_desired(path: Path) -> Desired:
    """Parse one desired state. Raises ``ValueError`` naming the file when it is damaged."""
    try:
        desired = Desired(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no desired state ({error}): materialize endpoint again") from error
    if desired.chain != path.stem:
        raise ValueError(f"{path} asks for chain {desired.chain}: a desired state is named after its chain")
    return desired


def relative_to_home(home: Path, directory: Path) -> str:
    """A path that stays right when the data root moves: relative below it, absolute elsewhere."""
    return str(directory.relative_to(home) if directory.is_relative_to(home) else directory)


def gateway_lock(home: Path) -> FileLock:
    """Held by the gateway of a data root while it lives; the system releases it when its holder dies."""
    folder = home / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "gateway.lock")


def gateway_state_path(home: Path) -> Path:
    """Where the gateway says where it listens and what it serves."""
    return home / "serving" / "gateway.json"


def gateway_state(home: Path) -> dict[str, Any] | None:
    """The state of the gateway that runs on a data root, or None.

    ``{"pid", "node", "host", "port", "url", "started", "chains": {chain: {"desired", "desired_at", "live", "error"}}}``
    """
    lock = gateway_lock(home)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            state = dict(json.loads(gateway_state_path(home).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return None  # it holds the lock and has not yet written its own
        return None if _is_of_the_dead(state) else state
    lock.release()
    return None


def _is_of_the_dead(state: Mapping[str, Any]) -> bool:
    """Whether a gateway that was killed left this, and its successor, which has the lock, has not yet written its own."""
    return state.get("node") == platform.node() and not psutil.pid_exists(state["pid"])


def page_url(home: Path, link: str, fingerprint: str, page: str) -> str:
    """Where the gateway that runs now, or the next one at its usual address, shows a page such as ``pages/rules.html``."""
    state = gateway_state(home) or {}
    return f"{state.get('url', DEFAULT_URL)}/artifacts/{link}/{fingerprint}/{page}"
