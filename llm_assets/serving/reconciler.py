"""Brings what is served to what is desired: verifies, loads and probes a release before it takes over."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm_assets.serving.engine import EngineError
from llm_assets.serving.engines import Engine, load_engine
from llm_assets.serving.generation import Generator
from llm_assets.serving.releases import verify_files
from llm_assets.serving.rollout import Rollout
from llm_assets.serving.state import Desired, desired_folder, read_desired, rollout_of

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PROBE = "A short sentence, 一个短句。"
RETRY = 30.0  # seconds until a refused release is tried again, for what heals by itself (a volume mounted late)


@dataclass(frozen=True, eq=False)
class Deployment:
    """A release with its loaded engine; one is like no other, so that what belongs to it can end with it."""

    desired: Desired
    engine: Engine


@dataclass(frozen=True)
class Refusal:
    """Why a desired state was not put to service."""

    desired: Desired | None  # None for a file that does not parse
    reason: str
    until: float  # ``time.monotonic()`` of the next attempt


class Reconciler:
    """Level-triggered: each ``step`` compares the desired folder with what is live and mends the difference.

    A release that does not verify, load or pass its probe leaves the older one serving. While a rollout is under way both
    releases are loaded, the stable one in ``live``, the other in ``candidates``; ``rollouts`` is how far each chain's has come.
    The mappings are replaced as a whole and never changed, so that the event loop may read them while a step runs in a thread.
    """

    def __init__(self, home: Path, load: Callable[[Path], Engine] = load_engine) -> None:
        self._home = home
        self._load = load
        self.live: dict[str, Deployment] = {}
        self.candidates: dict[str, Deployment] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.wanted: dict[str, Desired | None] = {}
        self.refused: dict[str, Refusal] = {}
        self.looked = False  # whether a first step has ended

    def close(self) -> None:
        """End the processes of every engine."""
        for deployment in (*self.live.values(), *self.candidates.values()):
            _close(deployment.engine)

    def step(self) -> None:
        """One comparison; takes as long as a new release takes to load. Not for two threads at once."""
        paths = {path.stem: path for path in desired_folder(self._home).glob("*.json")}
        for chain in self.wanted.keys() - paths.keys():
            self._retire(chain)
        for chain, path in sorted(paths.items()):
            self._reconcile(chain, path)
        self.looked = True

    @property
    def ready(self) -> bool:
        """Whether every desired chain is served, be it by an older release."""
        return self.looked and self.wanted.keys() <= self.live.keys()

    def status(self) -> dict[str, dict[str, Any]]:
        """Per chain: the desired release and when it was asked for, the live one, and why they differ if one was refused or taken back.

        ``state`` is full, shadow, canary, rolled_back or, until all that it asks for is loaded, loading; ``split`` is percent by release.
        """
        wanted, live, refused, rollouts, candidates = self.wanted, self.live, self.refused, self.rollouts, self.candidates
        status = {}
        for chain, desired in sorted(wanted.items()):
            rollout, serving = rollouts.get(chain), live.get(chain)
            alone = {serving.desired.release: 100.0} if serving else {}
            reason = refused[chain].reason if chain in refused else None
            status[chain] = {
                "desired": desired.release if desired else None,
                "desired_at": desired.at if desired else None,
                "live": serving.desired.release if serving else None,
                "error": reason or (f"{rollout.release} was rolled back: {rollout.reason}" if rollout and rollout.reason else None),
                "state": _state(desired, rollout, serving is not None, chain in candidates),
                "split": rollout.split if rollout and chain in candidates else alone,
            }
        return status

    def _reconcile(self, chain: str, path: Path) -> None:
        desired = None
        try:
            desired = read_desired(path)
            rollout = rollout_of(self._home, desired)
            self.rollouts = {**self.rollouts, chain: rollout} if rollout else _without(self.rollouts, chain)
            base, candidate = _parts(desired, rollout)
            if self._is_settled(desired, base, candidate):
                return
            self._want(chain, desired)
            self._bring_about(chain, base, candidate)
            self.refused = _without(self.refused, chain)
        except Exception as error:  # whatever a broken release does, the older one goes on
            self._want(chain, desired)
            if chain not in self.refused:
                logger.error("%s: refused: %s", chain, error)
            reason = str(error) or type(error).__name__
            self.refused = {**self.refused, chain: Refusal(desired, reason, time.monotonic() + RETRY)}

    def _bring_about(self, chain: str, base: Desired, candidate: Desired | None) -> None:
        """Load what is not loaded yet and put each in its place. Raises what a release's loading raised; the others are then in theirs."""
        try:
            self.live = {**self.live, chain: self._deployment(base)}
        finally:
            if candidate:
                self.candidates = {**self.candidates, chain: self._deployment(candidate)}
                self.live = {chain: self.candidates[chain], **self.live}  # better than nothing, where the stable release is damaged
            else:
                self.candidates = _without(self.candidates, chain)

    def _deployment(self, desired: Desired) -> Deployment:
        """The release loaded, be it in the other place, as when a rollout has ended."""
        for known in (self.live.get(desired.chain), self.candidates.get(desired.chain)):
            if known and _serves(known, desired):
                return known
        deployment = Deployment(desired, self._prepare(desired))
        logger.info("%s has loaded %s", desired.chain, desired.release)
        return deployment

    def _want(self, chain: str, desired: Desired | None) -> None:
        """Note what is wanted; a refusal of something else ends with it."""
        if chain not in self.wanted or self.wanted[chain] != desired:
            self.refused = _without(self.refused, chain)
            self.wanted = {**self.wanted, chain: desired}

    def _is_settled(self, desired: Desired, base: Desired, candidate: Desired | None) -> bool:
        """Whether this very desired state was dealt with already."""
        refusal = self.refused.get(desired.chain)
        if refusal:
            return refusal.desired == desired and time.monotonic() < refusal.until
        live, beside = self.live.get(desired.chain), self.candidates.get(desired.chain)
        return self.wanted.get(desired.chain) == desired and _serves(live, base) and _serves(beside, candidate)

    def _prepare(self, desired: Desired) -> Engine:
        directory = self._home / desired.directory
        verify_files(desired.release, directory, desired.files)
        engine = self._load(directory)
        try:
            _probe(engine, desired.release)
        except BaseException:
            _close(engine)
            raise
        return engine

    def _retire(self, chain: str) -> None:
        self.wanted = _without(self.wanted, chain)
        self.live, self.candidates = _without(self.live, chain), _without(self.candidates, chain)
        self.refused, self.rollouts = _without(self.refused, chain), _without(self.rollouts, chain)
        logger.info("%s is no longer served", chain)


def _without(mapping: Mapping[str, Value], key: str) -> dict[str, Value]:
    return {name: value for name, value in mapping.items() if name != key}


def _parts(desired: Desired, rollout: Rollout | None) -> tuple[Desired, Desired | None]:
    """The release that serves, and the one that is rolled out beside it."""
    if desired.stable is None or (rollout and rollout.stage == "full"):
        return desired, None
    return desired.stable, None if rollout and rollout.is_over else desired


def _state(desired: Desired | None, rollout: Rollout | None, is_serving: bool, has_candidate: bool) -> str:
    if not is_serving:
        return "loading"
    if rollout is None:
        return "loading" if desired and desired.stable else "full"
    return rollout.stage if rollout.is_over or has_candidate else "loading"


def _serves(deployment: Deployment | None, desired: Desired | None) -> bool:
    if deployment is None or desired is None:
        return deployment is None and desired is None
    return (deployment.desired.release, deployment.desired.files) == (desired.release, desired.files)


def _close(engine: Engine) -> None:
    """End what an engine started; also done when nobody holds it any more."""
    if isinstance(engine, Generator):
        engine.close()


def _probe(engine: Engine, release: str) -> None:
    """Classify a fixed sentence, or go on after it.

    Raises ``EngineError`` unless the answer is a distribution over the labels, or what its problem asks for.
    """
    if isinstance(engine, Generator):
        engine.probe(PROBE)
        return
    found = engine.classify([PROBE])[0]
    sound = {
        "multi_label": all(0 <= probability <= 1 for probability in found),
        "regression": all(map(math.isfinite, found)),
    }.get(engine.problem, math.isclose(math.fsum(found), 1.0, abs_tol=1e-6))
    if len(found) != len(engine.labels) or not sound:
        raise EngineError(f"{release}: the probe got {found} for the labels {engine.labels}; materialize quantized_model again")
