"""What the endpoint asset and the gateway tell each other: the desired releases, and the gateway's own state."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from llm_assets.serving.rollout import Plan, Rollout, resumed
from llm_assets.store.files import write_json
from llm_assets.store.journal import now

DEFAULT_URL = "http://127.0.0.1:8000"  # where `up` and `serve` put the gateway unless told otherwise


@dataclass(frozen=True)
class Desired:
    """The release a chain should serve: at once, or after a rollout beside the release that serves until then."""

    chain: str
    release: str
    fingerprint: str  # of the quantized model
    directory: str  # of its files: below the data root where that holds them, else absolute
    files: Mapping[str, str]  # name -> SHA-256 of each file that is served
    at: str  # when it was asked for, UTC, ISO 8601
    stable: Desired | None = None  # what answers until the release has shown itself; None: nothing, it is served at once
    plan: Plan | None = None  # of the rollout, where there is a stable release
    began: str = ""  # ``at`` of the ask that began the rollout, where a later one goes on with it


def desired_folder(home: Path) -> Path:
    """One ``<chain>.json`` for each chain that is to be served."""
    return home / "serving" / "desired"


def desired_path(home: Path, chain: str) -> Path:
    """The desired state of one chain."""
    return desired_folder(home) / f"{chain}.json"


def write_desired(
    home: Path, chain: str, release: Mapping[str, Any], stable: Desired | None = None, plan: Plan | None = None, began: str = ""
) -> Desired:
    """Ask the gateway for a release, given as the release link's record; with ``stable`` and ``plan`` it is rolled out beside that.

    ``began`` names a rollout to go on with, else a new one begins.
    """
    asked, at = (release["release"], release["quantized_model"], release["directory"], dict(release["files"])), now()
    desired = Desired(chain, *asked, at, stable, plan, began or at) if stable and plan else Desired(chain, *asked, at)
    write_json(desired_path(home, chain), asdict(desired))
    return desired


def read_desired(path: Path) -> Desired:
    """Parse one desired state. Raises ``ValueError`` naming the file when it is damaged."""
    try:
        desired = _desired(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no desired state ({error}): materialize endpoint again") from error
    if desired.chain != path.stem:
        raise ValueError(f"{path} asks for chain {desired.chain}: a desired state is named after its chain")
    return desired


def proven(home: Path, chain: str) -> Desired | None:
    """The release that a chain's answers rest on now: the desired one, or the stable one while that is on trial or after it failed.

    None where nothing, or nothing readable, was desired yet.
    """
    desired = _known(home, chain)
    if desired is None or desired.stable is None:
        return desired
    rollout = rollout_of(home, desired)
    return replace(desired, stable=None, plan=None, began="") if rollout and rollout.stage == "full" else desired.stable


def under_way(home: Path, chain: str) -> Desired | None:
    """The desired state of a chain while its rollout has not ended, be it yet to begin."""
    desired = _known(home, chain)
    if desired is None or desired.stable is None:
        return None
    rollout = rollout_of(home, desired)
    return None if rollout and rollout.is_over else desired


def newest_rollout(home: Path, chain: str) -> Rollout | None:
    """Where the rollout stands that is desired of a chain now; None where none is, or it is yet to begin."""
    desired = _known(home, chain)
    return rollout_of(home, desired) if desired else None


def rollout_of(home: Path, desired: Desired) -> Rollout | None:
    """Where the rollout of a desired state stands; None where there is none, or it is yet to begin."""
    if desired.stable is None or desired.plan is None:
        return None
    return resumed(_read_rollout(home, desired.chain), desired.release, desired.stable.release, desired.began, desired.plan)


def write_rollout(home: Path, chain: str, rollout: Rollout) -> None:
    """Keep a rollout's state, for the next look and for every gateway of the data root. Call it under ``rollout_lock``."""
    write_json(_rollout_path(home, chain), asdict(rollout))


def rollout_lock(home: Path, chain: str) -> FileLock:
    """Held while a rollout's state is read, judged and written."""
    path = _rollout_path(home, chain)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def _known(home: Path, chain: str) -> Desired | None:
    try:
        return read_desired(desired_path(home, chain))
    except (FileNotFoundError, ValueError):
        return None


def _rollout_path(home: Path, chain: str) -> Path:
    return home / "serving" / "rollout" / f"{chain}.json"


def _read_rollout(home: Path, chain: str) -> Rollout | None:
    """None for a file that does not parse, too: the rollout begins anew, which is safe."""
    try:
        return Rollout(**json.loads(_rollout_path(home, chain).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _desired(values: Mapping[str, Any]) -> Desired:
    stable, plan = values.get("stable"), values.get("plan")
    parsed = {"stable": _desired(stable) if stable else None, "plan": Plan(**{**plan, "steps": tuple(plan["steps"])}) if plan else None}
    return Desired(**{**values, **parsed})


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

    ``{"pid", "node", "host", "port", "url", "started", "chains": {chain: <Reconciler.status>}}``
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
    """Where the gateway that runs now, or the next one at its usual address, shows a page of an artifact, such as ``pages/rules.html``."""
    return f"{service_url(home)}/artifacts/{link}/{fingerprint}/{page}"


def act_page_url(home: Path, directory: Path, page: str) -> str:
    """Where it shows a page of an act, whose files stand in ``directory`` below the data root."""
    return f"{service_url(home)}/{directory.relative_to(home).as_posix()}/{page}"


def audit_page_url(home: Path, page: str) -> str:
    """Where it shows the page of an audit's answer, such as ``verify.html``."""
    return f"{service_url(home)}/audit/{page}"


def service_url(home: Path) -> str:
    """Where the gateway of a data root answers, or would where it usually does."""
    return str((gateway_state(home) or {}).get("url", DEFAULT_URL))
