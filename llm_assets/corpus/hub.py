"""Data sets and models on a hub: the commit that a branch or tag names, asked for once and then held to."""

from __future__ import annotations

import re
from typing import Literal

from llm_assets.corpus.places import roots

COMMIT = re.compile(r"[0-9a-f]{40}")  # a pinned revision; a branch or a tag must be asked for
Kind = Literal["dataset", "model"]

_observed: dict[tuple[Kind, str, str | None], str] = {}


class HubError(RuntimeError):
    """The hub does not tell what a revision is."""


def observe_commit(kind: Kind, name: str, revision: str | None) -> str:
    """The commit a revision names now. Raises ``HubError`` naming what was asked for and the remedy."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().repo_info(name, repo_type=kind, revision=revision).sha
    except Exception as error:  # the hub's client raises errors of several libraries
        raise HubError(
            f"the hub does not tell the revision of the {kind} {name} ({type(error).__name__}); set `revision` to a 40-digit commit, "
            f"or name a local folder: by its full path, or from {' or '.join(map(str, roots()))}"
        ) from error
    _observed[kind, name, revision] = str(commit)
    return str(commit)


def observed_commit(kind: Kind, name: str, revision: str | None) -> str:
    """The commit this process observed last, which is the one the recipe names: a branch may have moved since."""
    return _observed.get((kind, name, revision)) or observe_commit(kind, name, revision)
