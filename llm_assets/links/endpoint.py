"""endpoint: asks the gateway for the chain's champion, at once or by a rollout, and waits until it serves it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator

from llm_assets.links.link import Acted, Check, Entry, Link, Office, Section
from llm_assets.links.reply_disagreement import UNIT
from llm_assets.serving.outcome import outcome
from llm_assets.serving.releases import CANDIDATE, champion, release_journal
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import Desired, proven, under_way, write_desired
from llm_assets.store.verdict import Verdict

FINE = ("live", "absent", "rolling_out", "waiting")


class EndpointConfig(Section):
    """How the endpoint is brought up, and how a release takes over from the one before."""

    wait_seconds: float = Field(30.0, ge=0, description="how long a running gateway may take to load, probe and serve the release")
    rollout: Literal["full", "canary"] = Field(
        "full", description="full: a release takes over at once; canary: it takes over by `steps` while the one before answers the rest"
    )
    shadow: bool = Field(False, description="canary: a first step in which the release answers beside the one before, unheard")
    steps: list[float] = Field([5.0, 25.0, 100.0], description="canary: percent of the requests in each step, rising to 100")
    step_seconds: float = Field(60.0, ge=0, description="canary: seconds that a step takes at least")
    step_requests: int = Field(100, ge=1, description="canary: requests to the new release that a step takes at least")
    minimum_requests: int = Field(10, ge=1, description="canary: requests to the new release before any limit is judged")
    max_error_rate: float = Field(0.02, ge=0, le=1, description="canary: share of the new release's requests that may fail")
    max_p99_ms: float = Field(500.0, gt=0, description="canary: milliseconds that 99 of 100 requests to the new release stay below")
    max_extra_disagreement: float = Field(
        0.1,
        ge=0,
        le=1,
        description="canary: share of answers that may differ from the release before, or bits per byte of replies that the two may be apart, "
        "beyond what the scorecard's gate predicted",
    )

    @field_validator("steps")
    @classmethod
    def _rise_to_all(cls, steps: list[float]) -> list[float]:
        if not steps or steps[-1] != 100 or steps[0] <= 0 or any(low >= high for low, high in pairwise(steps)):
            raise ValueError(f"steps rise from above 0 to 100, such as [5, 25, 100]; these are {steps}")
        return steps

    def plan(self, expected_disagreement: float | None, prediction: str = "", teams: Mapping[str, str] = {}, of_replies: bool = False) -> Plan:
        """The rules that the gateway gets, and by ``teams``, names by role, whom it tells of."""
        keys = (
            "shadow",
            "step_seconds",
            "step_requests",
            "minimum_requests",
            "max_error_rate",
            "max_p99_ms",
            "max_extra_disagreement",
        )
        return Plan(
            steps=tuple(self.steps),
            expected_disagreement=expected_disagreement,
            prediction=prediction,
            of_replies=of_replies,
            role=LINK.role,
            team=teams.get(LINK.role, LINK.role),
            **{key: getattr(self, key) for key in keys},
        )


def endpoint(office: Office, config: EndpointConfig, release: Entry) -> Acted:
    """The chain's champion as its desired state, which the gateway brings about.

    The gateway verifies the files' hashes, loads the model and probes it before it takes over; one that fails leaves the older
    release serving and fails this asset's check. With `rollout: canary` the new release then takes a growing share of the
    requests, and the gateway takes it back by itself when it breaks a limit; this asset does not wait for that end. Without a
    gateway the desired state waits for the next one that starts. A release that waits for approval changes nothing here.
    """
    asked = champion(release_journal(office.home, office.chain)) or release
    if asked.get("state") == CANDIDATE:
        detail = f"{asked['release']} waits for approval and nothing is served yet: llm-assets approve {office.chain} --by NAME"
        return Acted({"chain": office.chain, "release": None, "state": "waiting", "url": None, "detail": detail}, "none")
    desired = _ask(office, config, asked)
    found = outcome(office.home, desired, config.wait_seconds, office.progress)
    record = {
        "chain": office.chain,
        "release": desired.release,
        "quantized_model": desired.fingerprint,
        "directory": desired.directory,
        "stable": desired.stable.release if desired.stable else None,
        **found,
    }
    return Acted(record, desired.release)


def _ask(office: Office, config: EndpointConfig, release: Mapping[str, Any]) -> Desired:
    """Write the desired state: beside what serves now where that is another release and it is rolled out."""
    serving = proven(office.home, office.chain)
    if config.rollout == "full" or serving is None or serving.release == release["release"]:
        return write_desired(office.home, office.chain, release)
    gate = release.get("gate") or {}
    if gate.get("release") != serving.release:
        gate = {}  # measured against what serves, or not at all
    plan = config.plan(gate.get("disagreement"), gate.get("prediction") or "", office.teams, gate.get("unit") == UNIT)
    known = under_way(office.home, office.chain)
    goes_on = known and known.stable and (known.release, known.stable.release) == (release["release"], serving.release)
    return write_desired(office.home, office.chain, release, serving, plan, known.began if known and goes_on else "")


def _not_refused(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    passed = record["state"] in FINE
    return Verdict(check="gateway_serves_release", passed=passed, description=record["detail"], values={"state": record["state"]})


LINK = Link(
    name="endpoint",
    version=2,
    make=endpoint,
    config=EndpointConfig,
    inputs=("release",),
    stage="service",
    role="operations_engineer",
    kinds=("fastapi", "onnx"),
    checks=(Check("gateway_serves_release", "A running gateway loaded the release, probed it and serves it, or rolls it out.", _not_refused),),
    act=True,
)
