"""Brings what is served to what is desired: verifies, loads and probes a release before it takes over."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm_assets.serving.engine import EngineError, OnnxClassifier
from llm_assets.serving.state import Desired, desired_folder, read_desired
from llm_assets.store.files import sha256_file

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PROBE = "A short sentence, 一个短句。"
RETRY = 30.0  # seconds until a refused release is tried again, for what heals by itself (a volume mounted late)


@dataclass(frozen=True, eq=False)
class Deployment:
    """A release with its loaded engine; one is like no other, so that what belongs to it can end with it."""

    desired: Desired
    engine: OnnxClassifier


@dataclass(frozen=True)
class Refusal:
    """Why a desired state was not put to service."""

    desired: Desired | None  # None for a file that does not parse
    reason: str
    until: float  # ``time.monotonic()`` of the next attempt


class Reconciler:
    """Level-triggered: each ``step`` compares the desired folder with what is live and mends the difference.

    A release that does not verify, load or pass its probe leaves the older one serving. The mappings are replaced as a
    whole and never changed, so that the event loop may read them while a step runs in a thread.
    """

    def __init__(self, home: Path, load: Callable[[Path], OnnxClassifier] = OnnxClassifier) -> None:
        self._home = home
        self._load = load
        self.live: dict[str, Deployment] = {}
        self.wanted: dict[str, Desired | None] = {}
        self.refused: dict[str, Refusal] = {}
        self.looked = False  # whether a first step has ended

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
        """Per chain: the desired release and when it was asked for, the live one, and why they differ if one was refused."""
        wanted, live, refused = self.wanted, self.live, self.refused
        return {
            chain: {
                "desired": desired.release if desired else None,
                "desired_at": desired.at if desired else None,
                "live": live[chain].desired.release if chain in live else None,
                "error": refused[chain].reason if chain in refused else None,
            }
            for chain, desired in sorted(wanted.items())
        }

    def _reconcile(self, chain: str, path: Path) -> None:
        desired = None
        try:
            desired = read_desired(path)
            if self._is_settled(desired):
                return
            self._want(chain, desired)
            if not self._serves(desired):
                engine = self._prepare(desired)
                self.live = {**self.live, chain: Deployment(desired, engine)}
                logger.info("%s serves %s", chain, desired.release)
            self.refused = _without(self.refused, chain)
        except Exception as error:  # whatever a broken release does, the older one goes on
            self._want(chain, desired)
            if chain not in self.refused:
                logger.error("%s: refused: %s", chain, error)
            reason = str(error) or type(error).__name__
            self.refused = {**self.refused, chain: Refusal(desired, reason, time.monotonic() + RETRY)}

    def _want(self, chain: str, desired: Desired | None) -> None:
        """Note what is wanted; a refusal of something else ends with it."""
        if chain not in self.wanted or self.wanted[chain] != desired:
            self.refused = _without(self.refused, chain)
            self.wanted = {**self.wanted, chain: desired}

    def _is_settled(self, desired: Desired) -> bool:
        """Whether this very desired state was dealt with already."""
        refusal = self.refused.get(desired.chain)
        if refusal:
            return refusal.desired == desired and time.monotonic() < refusal.until
        return self.wanted.get(desired.chain) == desired and self._serves(desired)

    def _serves(self, desired: Desired) -> bool:
        live = self.live.get(desired.chain)
        return bool(live and (live.desired.release, live.desired.files) == (desired.release, desired.files))

    def _prepare(self, desired: Desired) -> OnnxClassifier:
        directory = self._home / desired.directory
        _verify(desired, directory)
        engine = self._load(directory)
        _probe(engine, desired.release)
        return engine

    def _retire(self, chain: str) -> None:
        self.wanted = _without(self.wanted, chain)
        self.live, self.refused = _without(self.live, chain), _without(self.refused, chain)
        logger.info("%s is no longer served", chain)


def _without(mapping: Mapping[str, Value], key: str) -> dict[str, Value]:
    return {name: value for name, value in mapping.items() if name != key}


def _verify(desired: Desired, directory: Path) -> None:
    """Compare each served file with the hash it was released with. Raises ``EngineError`` naming the file."""
    for name, expected in desired.files.items():
        path = directory / name
        if not path.is_file():
            raise EngineError(f"{desired.release}: {path} is missing; materialize quantized_model and release again")
        if sha256_file(path) != expected:
            raise EngineError(
                f"{desired.release}: {path} is not the file that was released (its SHA-256 differs); "
                "run `llm-assets verify --discard` and materialize quantized_model again"
            )


def _probe(engine: OnnxClassifier, release: str) -> None:
    """Classify a fixed sentence. Raises ``EngineError`` unless the answer is a distribution over the labels, or what its problem asks for."""
    found = engine.classify([PROBE])[0]
    sound = {
        "multi_label": all(0 <= probability <= 1 for probability in found),
        "regression": all(map(math.isfinite, found)),
    }.get(engine.problem, math.isclose(math.fsum(found), 1.0, abs_tol=1e-6))
    if len(found) != len(engine.labels) or not sound:
        raise EngineError(f"{release}: the probe got {found} for the labels {engine.labels}; materialize quantized_model again")
