"""endpoint: asks the gateway for a release and waits until it serves it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.links.link import Acted, Check, Entry, Link, Office, Section
from llm_assets.serving.state import Desired, gateway_state, write_desired
from llm_assets.store.verdict import Verdict

INTERVAL = 0.1  # seconds between two looks at the gateway's state
ABSENT = "no gateway runs on this data root: start one with `llm-assets serve` (or `llm-assets up`), it will serve this release"


class EndpointConfig(Section):
    """How the endpoint is brought up."""

    wait_seconds: float = Field(30.0, ge=0, description="how long a running gateway may take to load, probe and serve the release")


def endpoint(office: Office, config: EndpointConfig, release: Entry) -> Acted:
    """The release as the chain's desired state, which the gateway brings about.

    The gateway verifies the files' hashes, loads the model and probes it before it takes over; one that fails leaves the older
    release serving and fails this asset's check. Without a gateway the desired state waits for the next one that starts.
    """
    desired = write_desired(office.home, office.chain, release)
    outcome = _outcome(office, desired, config.wait_seconds)
    record = {"chain": office.chain, "release": desired.release, "quantized_model": desired.fingerprint, "directory": desired.directory, **outcome}
    return Acted(record, desired.release)


def _outcome(office: Office, desired: Desired, seconds: float) -> dict[str, Any]:
    """``state`` (live, refused, late or absent), the gateway's ``url``, and ``detail`` for a person."""
    began = time.monotonic()
    while state := gateway_state(office.home):
        chain = state["chains"].get(desired.chain, {})
        waited = time.monotonic() - began
        if chain.get("live") == desired.release:  # whoever asked for it last
            return {"state": "live", "url": state["url"], "detail": f"{desired.release} answers at {state['url']}/v1/classify"}
        if _is_refusal_of(desired, chain):
            return {"state": "refused", "url": state["url"], "detail": f"{chain['error']}; {chain['live'] or 'nothing'} goes on serving"}
        if waited > seconds:
            return {"state": "late", "url": state["url"], "detail": f"{desired.release} is not live after {seconds:g} s; see {state['url']}/readyz"}
        office.progress(min(waited, seconds), seconds, "seconds")
        time.sleep(INTERVAL)
    return {"state": "absent", "url": None, "detail": ABSENT}


def _is_refusal_of(desired: Desired, chain: Mapping[str, Any]) -> bool:
    """Whether the gateway refused this release since it was asked for, here or by another run; an older error says nothing of it."""
    return bool(chain.get("error")) and chain["desired"] == desired.release and chain["desired_at"] >= desired.at


def _not_refused(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    passed = record["state"] in ("live", "absent")
    return Verdict(check="gateway_serves_release", passed=passed, description=record["detail"], values={"state": record["state"]})


LINK = Link(
    name="endpoint",
    version=1,
    make=endpoint,
    config=EndpointConfig,
    inputs=("release",),
    stage="service",
    role="operations_engineer",
    kinds=("fastapi", "onnx"),
    checks=(Check("gateway_serves_release", "A running gateway loaded the release, probed it and serves it.", _not_refused),),
    act=True,
)
