"""The release that serves, from the journal of releases and the files of the artifacts it stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.serving.releases import release_journal, standing
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import MANIFEST, ArtifactError, InputEntry, Manifest


@dataclass(frozen=True)
class Released:
    """A release and the quantized model that answers for it."""

    name: str
    model: Artifact

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the model serves with: ``labels``, ``problem``, ``max_length`` and so on."""
        return dict(json.loads((self.model.directory / "serving.json").read_text(encoding="utf-8")))

    def input(self, link: str) -> Artifact:
        """What the model was made from, or what that was. Raises ``ArtifactError`` where it is not on this machine."""
        level = [self.model]
        while level:
            for made in level:
                if entry := made.manifest.inputs.get(link):
                    return _beside(made, entry)
            level = [_beside(made, entry) for made in level for entry in made.manifest.inputs.values()]
        raise ArtifactError(f"{self.name} was made from no {link}: materialize the chain again")


def released(home: Path, chain: str, release: str | None = None) -> Released | None:
    """A release by name, one that still waits included, else the champion; None where there is none.

    Raises ``ArtifactError`` where its files are gone.
    """
    known = standing(release_journal(home, chain))
    named = {record["release"]: record for record in (*known.released, *known.waiting.values())}
    found = named.get(release) if release else known.champion
    return Released(found["release"], opened(home / found["directory"])) if found else None


def _beside(made: Artifact, entry: InputEntry) -> Artifact:
    return opened(made.directory.parents[1] / entry.link / entry.fingerprint)


def opened(directory: Path) -> Artifact:
    """The artifact in a folder of the store or of its cache. Raises ``ArtifactError`` when there is none."""
    path = directory / MANIFEST
    try:
        return Artifact(directory, Manifest.read(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise ArtifactError(f"{directory} holds no artifact: materialize {directory.parent.name} again, or restore it from a backup") from None
