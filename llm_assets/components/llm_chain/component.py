"""The component `llm_assets.LlmChain`: a chain's YAML becomes assets, checks, jobs, schedules and sensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import yaml
from pydantic import BaseModel

from llm_assets.components.llm_chain.assets import chain_assets
from llm_assets.components.llm_chain.automation import chain_job, nightly
from llm_assets.components.llm_chain.lineage_check import lineage_checks
from llm_assets.components.llm_chain.policy import retraining
from llm_assets.components.llm_chain.questions import Peers, question_assets
from llm_assets.components.llm_chain.resources import ChainResource, resource_key
from llm_assets.components.llm_chain.service_events import service_events
from llm_assets.components.llm_chain.spec import ChainSpec, GenerationSpec, PresetError, Settings, with_preset
from llm_assets.components.llm_chain.watching import alerting, watching, watching_job

STARTER = {  # what `dg scaffold defs` writes: one source to replace, everything else by default
    "raw_corpus": {
        "sources": [
            {
                "kind": "files",
                "name": "mine",
                "path": "inbox/CHAIN/*.jsonl",
                "license": "yours",
                "language": "zh",
                "columns": {"text": "text", "label": "label"},
            }
        ]
    }
}


TALKING_STARTER = {
    "raw_corpus": {
        "sources": [
            {
                "kind": "files",
                "name": "mine",
                "path": "inbox/CHAIN/*.jsonl",
                "license": "yours",
                "language": "zh",
                "columns": {"text": "text"},
            }
        ]
    },
    "evaluation_sets": {"unlabelled": True, "sources": ["mine"]},
    "tokenizer": {"kind": "byte_bpe"},
    "labelled_examples": {"sources": ["mine"]},
    "pretrained_checkpoint": {"objective": "causal", "size": "micro"},
}


class ChainScaffolder(dg.Scaffolder):
    """Writes a chain's first YAML: JSON lines with a text and a label, from the chain's inbox."""

    STARTER: ClassVar[dict[str, Any]] = STARTER

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write ``defs.yaml`` into the new folder, its inbox named after it."""
        text = json.dumps(self.STARTER).replace("CHAIN", request.target_path.name)
        dg.scaffold_component(request, json.loads(text))


class ConversationScaffolder(ChainScaffolder):
    """Writes the first YAML of a chain that talks: JSON lines from its inbox, each text a conversation, a turn a line."""

    STARTER = TALKING_STARTER


class ChainSpecError(ValueError):
    """A chain's YAML says something impossible; the message names file and line."""


@dg.scaffold_with(ChainScaffolder)
class LlmChain(dg.Component):
    """An LLM value chain from raw text to a served model, described by one YAML file.

    Each link of the chain has a section; `presets` holds named overlays, chosen by `preset` or LLM_ASSETS_PRESET.
    """

    SPEC: ClassVar[type[Settings]] = ChainSpec  # its task: which links the chain has, and so what its YAML may say

    def __init__(self, spec: Settings) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of `attributes`."""
        return cls.SPEC

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> LlmChain:
        """Lay the preset over the sections and name the chain after its folder where the YAML gives no name."""
        assert attributes is not None
        values = {**attributes.model_dump(exclude_unset=True, mode="json")}
        values["name"] = values.get("name") or context.path.name
        try:
            return cls(with_preset(values, cls.SPEC))
        except PresetError as error:
            raise ChainSpecError(f"{_place(context.path / 'defs.yaml', error.keys)}: {error}") from None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Everything Dagster shows of this chain."""
        return chain_definitions(self.spec, lambda: [chain.spec for chain in context.component_tree.get_all_components(of_type=LlmChain)])


@dg.scaffold_with(ConversationScaffolder)
class GenerationChain(LlmChain):
    """The same chain for a model that talks: a decoder that learns from conversations and is served in OpenAI's shapes.

    Labelled examples are conversations, the finetuned model answers, the quantized one is GGUF for llama.cpp.
    """

    SPEC = GenerationSpec


def chain_definitions(spec: Settings, peers: Peers | None = None) -> dg.Definitions:
    """The definitions of one chain; they need nothing from the project they are merged into but, for an audit, its other chains."""
    job, watch = chain_job(spec), watching_job(spec)
    return dg.Definitions(
        assets=[*chain_assets(spec), *question_assets(spec, peers or (lambda: (spec,)))],
        asset_checks=lineage_checks(spec),
        jobs=[job, watch],
        schedules=[nightly(spec, job), watching(spec, watch)],
        sensors=[retraining(spec, job), alerting(spec), service_events(spec)],
        resources={resource_key(spec.name): ChainResource(store_root=spec.store, mlflow_uri=spec.mlflow, openlineage_url=spec.openlineage)},
        metadata={f"llm_assets/{spec.name}/preset": spec.preset or "none"},
    )


def _place(path: Path, keys: tuple[str, ...]) -> str:
    """``file:line`` of the deepest of the keys that the YAML holds below ``attributes``."""
    node: Any = yaml.compose(path.read_text(encoding="utf-8")) if path.exists() else None
    line = 0
    for key in ("attributes", *keys):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((name, value) for name, value in pairs if name.value == key), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"{path}:{line}"
