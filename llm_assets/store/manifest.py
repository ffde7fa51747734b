"""The manifest: what an artifact is, what it was made from, and the hash of every file in it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_assets.store.files import sha256_file
from llm_assets.store.fingerprint import digest

STORE_FORMAT = 1  # raised when a reader of older manifests would misread newer ones
OLDEST_FORMAT = 1  # that is still read as it stands; where an older one is to be read, `Manifest.read` migrates it
MANIFEST = "manifest.json"
PLOTS = "plots/"  # pictures for people: a new plotting library must not ripple through the chain


class ArtifactError(RuntimeError):
    """An artifact is missing, incomplete or not what its manifest says."""


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(extra="forbid")
    size: int = Field(description="bytes")
    sha256: str


class InputEntry(BaseModel):
    """The exact artifact that an input was."""

    model_config = ConfigDict(extra="forbid")
    link: str
    fingerprint: str
    data_version: str


class Manifest(BaseModel):
    """An artifact's manifest; writing it is the commit."""

    model_config = ConfigDict(extra="forbid")
    store_format: int = STORE_FORMAT
    link: str
    fingerprint: str
    data_version: str
    recipe: dict[str, Any]
    inputs: dict[str, InputEntry]
    files: dict[str, FileEntry]
    licenses: list[str]
    metrics: dict[str, Any]
    libraries: dict[str, str]
    code: dict[str, Any] = Field(description="hash of the link's sources, git commit, dirty flag")
    dagster_run_id: str | None = None
    host: str
    started: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(description="wall clock")
    core_seconds: float = Field(description="processor time of the run's process and its children")
    peak_memory_bytes: int = Field(description="largest resident memory of the run's process and its children together")
    energy_joules: float | None = Field(
        default=None, description="of the machine's processors meanwhile, by their own counters; None where it shows none, or did not then"
    )

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())

    @classmethod
    def read(cls, content: bytes | str, place: str) -> Manifest:
        """Parse a manifest; ``place`` names it in errors. Raises ``ArtifactError`` for a damaged, a newer or a too old one."""
        try:
            value = json.loads(content)
            if (written := value.get("store_format", 0)) > STORE_FORMAT:
                raise ArtifactError(f"{place} has store format {written}; this release reads {STORE_FORMAT}: upgrade llm_assets")
            if written < OLDEST_FORMAT:
                raise ArtifactError(
                    f"{place} has store format {written}, which this release reads no more: open it with the one that wrote it, or make it again"
                )
            return cls.model_validate(value)
        except (ValueError, ValidationError, AttributeError, TypeError) as error:
            raise ArtifactError(f"{place} is damaged ({error}); restore it or discard the artifact and run again") from error


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file below ``directory``, by its relative POSIX path, sorted."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): FileEntry(size=path.stat().st_size, sha256=sha256_file(path)) for path in paths}


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """The data version of a deterministic link: one digest over its files' names and hashes, pictures left out."""
    return digest({name: entry.sha256 for name, entry in files.items() if not name.startswith(PLOTS)})[:24]


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the libraries that matter to a result."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
