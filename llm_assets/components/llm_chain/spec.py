"""What a chain's YAML may say, task by task: the settings that concern all links; the section of each link or act is defined beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, create_model, field_validator, model_validator

from llm_assets.links.chain import CHAIN, GENERATION, without
from llm_assets.links.link import Link
from llm_assets.links.roles import ROLES
from llm_assets.operation.acts import OPERATION
from llm_assets.operation.annotation import Annotation
from llm_assets.operation.policy import Retraining
from llm_assets.store.strict import Strict
from llm_assets.training.adapters import UNMERGED, Adapter

PRESET_VARIABLE = "LLM_ASSETS_PRESET"
TEAM = re.compile(r"[A-Za-z0-9_-]+")
PRESET_TAG = "llm_assets/preset"  # of a run


class Settings(Strict):
    """The keys of a chain's YAML that concern all its links."""

    CHAIN: ClassVar[tuple[Link, ...]] = ()  # the links that its task may have, in the order in which they are made
    OPERATION: ClassVar[tuple[Link, ...]] = ()  # the acts of the chain in service

    name: str = Field(
        "", pattern=r"^[a-z][a-z0-9_]*$|^$", description="Name of the chain and first part of its asset keys; default: the folder's name"
    )
    preset: str = Field("", description="Which of `presets` to lay over the sections; LLM_ASSETS_PRESET in the environment wins; default: none")
    seed: int = Field(17, ge=0, description="Seed of everything random; part of every recipe")
    executor: Literal["in_process", "processes"] = Field(
        "in_process", description="Where links run: in the run's own process, or each in a process forked from a preloaded server"
    )
    automation: bool = Field(False, description="Whether the schedules and the sensors start switched on")
    schedule: str = Field("0 2 * * *", description="When the schedule materializes the chain: five cron fields, UTC")
    watching: str = Field("17 * * * *", description="When traffic is read and drift, alerts and feedback are looked at: five cron fields, UTC")
    inbox_seconds: int = Field(60, ge=10, description="Seconds between two looks at whether there is reason to run again, new documents among them")
    retraining: Retraining = Field(Retraining(), description="What makes the chain run again by itself, when automation is on")
    store: str = Field("", description="Root of the artifacts as an fsspec URL, such as s3://bucket/prefix; default: artifacts/ in the data root")
    mlflow: str = Field("", description="MLflow tracking URI; default: a database in the data root")
    openlineage: str = Field(
        "",
        description="URL of a server that gets OpenLineage's events; default: OPENLINEAGE_URL or the client's own configuration, "
        "else they stand in openlineage/ in the data root alone",
    )
    annotation: Annotation = Field(Annotation(), description="Which answers are worth labelling by hand, and how well annotators must agree")
    roles: dict[str, str] = Field(
        default_factory=dict, description="Teams by role, where they are named otherwise or merged, such as {data_engineer: corpus-team}"
    )
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Overlays by name: sections with the keys to change")

    @field_validator("roles")
    @classmethod
    def _known_roles(cls, roles: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(roles.keys() - ROLES.keys()):
            raise ValueError(f"no role {', '.join(unknown)}; there are: {', '.join(ROLES)}")
        if bad := [team for team in roles.values() if not TEAM.fullmatch(team)]:
            raise ValueError(f"{bad[0]!r} is no team's name: letters, digits, - and _")
        return roles

    @model_validator(mode="after")
    def _feedback_is_learned_from(self) -> Self:
        sections = [section for name in ("labelled_examples", "aligned_model") if (section := getattr(self, name, None)) is not None]
        if self.retraining.feedback and sections and not any(section.feedback.folder for section in sections):
            raise ValueError(
                "retraining.feedback waits for labelled texts that nothing learns from: "
                "set labelled_examples.feedback.folder to feedback/<chain>, or retraining.feedback to 0"
            )
        return self

    @model_validator(mode="after")
    def _stands_on_whole_weights(self) -> Self:
        adapter = getattr(getattr(self, "finetuned_model", None), "adapter", Adapter())
        for name in ("aligned_model", "task_adapters"):
            if adapter.kind == "prefix" and getattr(self, name, None) is not None:
                raise ValueError(f"{name}: {UNMERGED}, or leave out the section {name}")
        return self

    @model_validator(mode="after")
    def _says_nothing_of_a_run(self) -> Self:
        for link in self.CHAIN:
            section = getattr(self, link.name, None)
            if section is not None and (said := sorted(section.SAID_OF_A_RUN & section.model_fields_set)):
                raise ValueError(f"{link.name}.{said[0]} tells of one run; in the YAML it would hold for every run: give it in that run's config")
        return self

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that this chain has, in the order in which they are made: optional ones where the YAML has their section."""
        return without(self.CHAIN, [link.name for link in self.CHAIN if link.optional and getattr(self, link.name) is None])

    def team_of(self, role: str) -> str:
        """The team that has a role in this chain."""
        return self.roles.get(role, role)


def _section(link: Link) -> Any:
    """A section may be left out where all its keys have defaults, or where the link goes with it."""
    if link.optional:
        return (link.config | None, None)
    required = any(field.is_required() for field in link.config.model_fields.values())
    return (link.config, ...) if required else (link.config, Field(default_factory=link.config))


def spec_of_task(name: str, chain: Sequence[Link]) -> type[Settings]:
    """The model ``name`` of a whole YAML: the settings and one section a link, those in service included."""
    model = create_model(
        name,
        __base__=Settings,
        __doc__="The whole YAML of a chain: the settings and one section a link, those in service included.",
        **{link.name: _section(link) for link in (*chain, *OPERATION)},
    )
    model.CHAIN, model.OPERATION = tuple(chain), OPERATION
    return model


ChainSpec = spec_of_task("ChainSpec", CHAIN)
GenerationSpec = spec_of_task("GenerationSpec", GENERATION)


class PresetError(ValueError):
    """A preset is unknown or does not fit; ``keys`` is the path in the YAML where it stands."""

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


def with_preset(values: Mapping[str, Any], model: type[Settings] = ChainSpec) -> Settings:
    """The spec with its preset laid over the sections.

    Mappings merge key by key, anything else (lists too) is replaced. Raises ``PresetError`` naming the preset's
    key for an unknown preset or one that makes the spec invalid.
    """
    presets = values.get("presets", {})
    name = os.environ.get(PRESET_VARIABLE) or values.get("preset", "")
    if name and name not in presets:
        raise PresetError(f"unknown preset {name!r}; this chain has {', '.join(presets) or 'none'}", ("preset",))
    for preset, overlay in presets.items():
        _validate_overlay(values, preset, overlay, model)
    merged = merge(values, presets[name]) if name else dict(values)
    return model.model_validate({**merged, "preset": name})


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """``overlay`` laid over ``base``, key by key through nested mappings."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def _validate_overlay(values: Mapping[str, Any], preset: str, overlay: Mapping[str, Any], model: type[Settings]) -> None:
    from pydantic import ValidationError

    try:
        model.model_validate(merge(values, overlay))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        raise PresetError(f"{'.'.join(path)}: {first['msg']}", ("presets", preset, *path)) from error
