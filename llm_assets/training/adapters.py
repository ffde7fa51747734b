"""Training a few weights beside frozen ones: PEFT's adapters by one key, and their merging into the weights they stand beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

Kind = Literal["none", "lora", "dora", "rslora", "pissa", "ia3", "adalora", "prefix", "prompt"]
FOLDER = "adapter"  # in the model's folder, in PEFT's form
UNMERGED = {  # why these end at the configuration, by kind
    "prefix": "its trained vectors stand before every text",
    "prompt": "its trained vectors stand before every text",
    "adalora": "it prunes by gradients that ZeRO has spread and cleared when PEFT asks for them",
}
FROM_THE_WEIGHTS = "pissa"  # kinds whose beginning is taken from the weights themselves, which change with it


class Adapter(Strict):
    """Which weights are trained."""

    kind: Kind = Field(
        "none",
        description="none: all weights; lora (Hu et al. 2022), dora (Liu et al. 2024), rslora (Kalajdzievski 2023), pissa (Meng et al. 2024): "
        "products of two thin matrices beside every matrix of the layers; ia3 (Liu et al. 2022): a factor for each key, value and inner vector",
    )
    rank: int = Field(8, ge=1, description="width of the thin matrices; ia3 has none")
    alpha: float = Field(16, gt=0, description="their product is multiplied by alpha / rank, by alpha / √rank in rslora")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into them")

    @model_validator(mode="after")
    def _can_be_merged(self) -> Adapter:
        if self.kind in UNMERGED:
            raise ValueError(
                f"adapter.kind is {self.kind}: {UNMERGED[self.kind]}, so no single model could be made of it to quantize and serve; "
                "take lora, dora, rslora, pissa or ia3, or none to train all weights"
            )
        return self


def configuration(adapter: Adapter) -> PeftConfig:
    """PEFT's configuration of it."""
    from peft import IA3Config, LoraConfig, TaskType

    if adapter.kind == "ia3":  # by the names that every decoder here has
        return IA3Config(task_type=TaskType.CAUSAL_LM, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
        init_lora_weights="pissa" if adapter.kind == FROM_THE_WEIGHTS else True,
    )


def used(objective: object) -> bool:
    """Whether an objective trains an adapter and no other weight."""
    return getattr(objective, "adapter", Adapter()).kind != "none"


def adapted(model: PreTrainedModel, adapter: Adapter) -> Any:
    """The model with the adapter beside its weights, which are frozen; the model itself for ``none``."""
    if adapter.kind == "none":
        return model
    from peft import get_peft_model

    model.name_or_path = "pretrained_checkpoint"  # goes into adapter_config.json, where a path of this machine has no business
    return get_peft_model(model, configuration(adapter))


def save(model: Any, folder: Path, weights: Any = None) -> None:
    """Write the adapter of ``model`` into ``folder/adapter``; ``weights`` is its whole state where it is spread over processes."""
    model.save_pretrained(folder / FOLDER, state_dict=weights, save_embedding_layers=False)  # else PEFT asks the hub for the model's vocabulary


def merge(base: Path, folder: Path) -> None:
    """Write into ``folder`` the model that ``base`` and the adapter in ``folder/adapter`` are together, as one set of weights.

    The weights are those whose sum with the adapter's the training saw: PiSSA's beginning is a decomposition of ``base``, made again.
    """
    merged = unmerged(base, folder / FOLDER).merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder)


def unmerged(base: Path, adapter: Path) -> Any:
    """The frozen weights of ``base`` with the adapter beside them, ready to answer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True)
    return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
