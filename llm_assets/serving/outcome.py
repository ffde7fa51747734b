"""What a running gateway made of a desired state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_assets.serving.state import Desired, gateway_state
from llm_assets.store.progress import Progress, silent

INTERVAL = 0.05  # seconds between two looks at the gateway's state
ABSENT = "no gateway runs on this data root: start one with `llm-assets serve` (or `llm-assets up`), it will serve this release"


def outcome(home: Path, desired: Desired, seconds: float, progress: Progress = silent) -> dict[str, Any]:
    """``state`` (live, rolling_out, refused, late or absent), the gateway's ``url``, and ``detail`` for a person; waits at most ``seconds``."""
    began = time.monotonic()
    while state := gateway_state(home):
        chain, url = state["chains"].get(desired.chain, {}), state["url"]
        waited = time.monotonic() - began
        if chain.get("live") == desired.release:  # whoever asked for it last
            return {"state": "live", "url": url, "detail": f"{desired.release} answers at {url}/v1/classify"}
        if _heard(desired, chain) and chain.get("state") in ("shadow", "canary"):
            split = ", ".join(f"{name} {share:g}%" for name, share in chain["split"].items())
            return {"state": "rolling_out", "url": url, "detail": f"{desired.release} is being rolled out ({chain['state']}): {split}; {url}/readyz"}
        if _heard(desired, chain) and chain.get("error"):
            return {"state": "refused", "url": url, "detail": f"{chain['error']}; {chain['live'] or 'nothing'} goes on serving"}
        if waited > seconds:
            return {"state": "late", "url": url, "detail": f"{desired.release} is not live after {seconds:g} s; see {url}/readyz"}
        progress(min(waited, seconds), seconds, "seconds")
        time.sleep(INTERVAL)
    return {"state": "absent", "url": None, "detail": ABSENT}


def _heard(desired: Desired, chain: Mapping[str, Any]) -> bool:
    """Whether what the gateway says is about this release since it was asked for, here or by another run; older news say nothing of it."""
    return chain.get("desired") == desired.release and chain["desired_at"] >= desired.at
