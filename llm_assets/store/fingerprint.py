"""The recipe of a made link and the fingerprint that names what it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FINGERPRINT_LENGTH = 24  # hexadecimal digits: 96 bits, no two recipes meet by chance


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a JSON value in one canonical spelling: sorted keys, no spaces, UTF-8.

    Raises ``TypeError`` for what JSON cannot say and ``ValueError`` for NaN and infinities.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """Everything a made link's result depends on; the chain's name is not in it, so chains share artifacts."""

    link: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)  # input name -> data version
    seed: int = 0
    observed: Mapping[str, Any] = field(default_factory=dict)  # what a source showed: size, hash, revision
    variant: str = ""  # which of the links that share the name

    @property
    def fingerprint(self) -> str:
        """The name of the artifact: the first 24 hexadecimal digits of the recipe's SHA-256."""
        return digest(self.stated())[:FINGERPRINT_LENGTH]

    def stated(self) -> dict[str, Any]:
        """The recipe as JSON values, as a manifest records it; a link without a variant states none."""
        stated = asdict(self)
        return stated if self.variant else {key: value for key, value in stated.items() if key != "variant"}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """What changed from another recipe (as a manifest records it), in words, one line a change."""
        mine = asdict(self)
        changes = [f"version {other['version']} -> {self.version}"] if other["version"] != self.version else []
        if other["seed"] != self.seed:
            changes.append(f"seed {other['seed']} -> {self.seed}")
        for part in ("config", "inputs", "observed"):
            before, after = flatten(other.get(part, {})), flatten(mine[part])
            changes += [
                f"{part}.{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
                for key in sorted(before.keys() | after.keys())
                if before.get(key) != after.get(key)
            ]
        return changes


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping from dotted path to leaf."""
    children: Mapping[str, Any]
    if isinstance(value, Mapping) and value:
        children = value
    elif isinstance(value, list) and value:
        children = {str(index): item for index, item in enumerate(value)}
    else:
        return {prefix: value} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, item in children.items():
        leaves |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return leaves
