"""What a link is: a function from artifacts and a config to an artifact, and what is declared beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets.store.progress import Progress, silent
from llm_assets.store.strict import Strict
from llm_assets.store.verdict import Verdict

Stage = Literal["corpus", "model", "service"]
Entry = Mapping[str, Any]  # what an act wrote into its journal
Input = Artifact | Entry  # what a link reads: a made artifact, or the newest entry of an act


class Section(Strict):
    """A link's section of the chain's YAML; also its Dagster run config."""

    SAID_OF_A_RUN: ClassVar[frozenset[str]] = frozenset()  # keys that set nothing: they tell of one run, who approved it and why

    def recipe(self) -> dict[str, Any]:
        """What of it decides the result, as JSON values: all of it, unless a section says otherwise."""
        return self.model_dump(mode="json", exclude=set(self.SAID_OF_A_RUN))

    def unread(self) -> tuple[str, ...]:
        """The inputs that the link does not read under these settings: they are no part of its recipe."""
        return ()


class AssetReference(Strict):
    """What another Dagster asset made, such as ``{asset: [reviews, pretrained_checkpoint]}``."""

    asset: list[str] = Field(min_length=1, description="asset key")
    path: str | None = Field(
        None, exclude=True, description="where it stands; filled in when the link runs and, like any place, no part of the recipe"
    )


class Launch(Protocol):
    """Starts training processes for a job file, reports their progress and returns when all have ended well.

    Raises ``WorkerFailedError`` with the end of the worker's log otherwise; leaves no process behind either way.
    """

    def __call__(self, job: Path, processes: int, progress: Progress) -> None:
        """Run ``job`` in ``processes`` workers."""
        ...


@dataclass(frozen=True)
class Bench:
    """What a made link works with besides its config and inputs."""

    directory: Path  # the artifact's files go here
    scratch: Path  # kept when the run is killed: checkpoints to resume from
    seed: int
    cache: Path  # the user's cache of downloaded archives
    launch: Launch
    progress: Progress = silent


@dataclass(frozen=True)
class Made:
    """What a made link returns; its files stand in ``bench.directory``."""

    metrics: Mapping[str, Any]
    licenses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Office:
    """What an act works with besides its config and inputs: acts always run, are idempotent and append to a journal."""

    chain: str
    home: Path  # the data root
    journal: Journal
    directory: Path  # for the files this act writes, made anew for each
    run_id: str | None = None
    progress: Progress = silent
    day: str | None = None  # the UTC date that a daily act is asked for
    teams: Mapping[str, str] = field(default_factory=dict)  # by role, where the chain names them otherwise


@dataclass(frozen=True)
class Acted:
    """What an act returns: a record for its journal, and a data version that changes only when the outcome does."""

    record: Mapping[str, Any]
    data_version: str


@dataclass(frozen=True)
class Check:
    """A check bound to the version it judges.

    ``judge(outcome, inputs)`` gets the artifact (or an act's record), and the link's inputs by name.
    """

    name: str
    description: str
    judge: Callable[[Any, Mapping[str, Any]], Verdict]
    blocking: bool = True


@dataclass(frozen=True)
class Link:
    """The declaration of one link."""

    name: str
    version: int  # raised by hand when the same recipe would now make something else
    make: Callable[..., Made | Acted]  # (bench or office, config, **inputs)
    config: type[Section]
    inputs: tuple[str, ...]
    stage: Stage
    role: str  # who answers for it and its checks: one of links.roles
    kinds: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    act: bool = False
    reads: tuple[str, ...] = ()  # assets whose files it finds by itself: drawn in the graph, not handed over
    trained: bool = False  # data version is the fingerprint, not the content
    observe: Callable[[Any], Mapping[str, Any]] | None = None  # what a source shows before it is read: size, hash, revision
    libraries: tuple[str, ...] = ()  # whose versions go into the manifest
    optional: bool = False  # a chain has it where its YAML has its section; what names it among its inputs does without it otherwise
    variant: str = ""  # the task it serves, where links of several tasks share a name: what they make differs, their place in the graph does not

    @property
    def identity(self) -> str:
        """Its name, and its variant where it has one: no two links share it."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def description(self) -> str:
        """The function's docstring, which is the asset's description in the UI."""
        return inspect.cleandoc(self.make.__doc__ or "")
