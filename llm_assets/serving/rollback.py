"""A rollback by hand: the journal, the gateway's desired state, and what the running gateway made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_assets.serving.events import append_event
from llm_assets.serving.outcome import outcome
from llm_assets.serving.releases import returnable, roll_back
from llm_assets.serving.state import write_desired

SECONDS = 30.0  # that a running gateway may take to load the release


def roll_back_by_hand(home: Path, chain: str, to: str, by: str, note: str, seconds: float = SECONDS) -> Mapping[str, Any]:
    """Make ``to`` (default: the release before the champion) the champion again and have it served in full.

    Returns what the gateway made of it (``outcome``) with ``release`` and, where there was one to leave, ``rolled_back_from``.
    The release that serves answers until the other is loaded, so no request is lost. Raises ``ReleaseError`` for a release that
    there is not, or whose files are gone or damaged; nothing is changed then.
    """
    target = returnable(home, chain, to)
    record = roll_back(home, chain, target["release"], by=by, note=note) or target
    desired = write_desired(home, chain, record)
    left = record.get("rolled_back_from")
    message = f"{by} rolled {chain} back to {desired.release}" + (f" from {left}" if left else "") + (f": {note}" if note else "")
    append_event(home, chain, "rollback", message, left, to=desired.release, by=by, note=note)
    return {"release": desired.release, "rolled_back_from": left, **outcome(home, desired, seconds)}
