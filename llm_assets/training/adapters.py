"""Training a few weights beside frozen ones: PEFT's adapters by one key, and their merging into the weights they stand beside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

Kind = Literal["none", "lora", "dora", "rslora", "pissa", "ia3", "adalora", "prefix", "prompt"]
FOLDER = "adapter"  # in the model's folder, in PEFT's form
WHOLE = ("adalora", "prompt", "prefix")  # kinds that look at whole weights between two updates
UNMERGED = (  # why what stands on a finetuned model refuses such a one
    "a tuned prefix (finetuned_model.adapter.kind: prefix) is keys and values of every layer, which no token's embedding gives and GGUF has no "
    "place for: its chain ends at finetuned_model, where its scores stand. To go on take prompt, its nearest kin, or another kind"
)
BEFORE = ("prompt", "prefix")  # kinds that stand before a conversation, ``tokens`` long
FROM_THE_WEIGHTS = "pissa"  # kinds whose beginning is taken from the weights themselves, which change with it


class Adapter(Strict):
    """Which weights are trained."""

    kind: Kind = Field(
        "none",
        description="none: all weights; lora (Hu et al. 2022), dora (Liu et al. 2024), rslora (Kalajdzievski 2023), pissa (Meng et al. 2024): "
        "products of two thin matrices beside every matrix of the layers; adalora (Zhang et al. 2023): such products, wider where it "
        "matters; ia3 (Liu et al. 2022): a factor for each key, value and inner vector; prompt (Lester et al. 2021): tokens before a conversation; "
        "prefix (Li & Liang 2021): keys and values of every layer before a conversation, which are scored and not served",
    )
    rank: int = Field(8, ge=1, description="width of the thin matrices, of adalora the mean at the end; ia3, prompt and prefix have none")
    alpha: float = Field(16, gt=0, description="their product is multiplied by alpha / rank, by alpha / √rank in rslora")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into them")
    tokens: int = Field(16, ge=1, description="of prompt and prefix: how many positions are learnt")

    @property
    def before(self) -> int:
        """Learnt positions before each conversation."""
        return self.tokens if self.kind in BEFORE else 0

    @property
    def virtual(self) -> int:
        """Tokens that stand for learnt vectors and no text."""
        return self.tokens if self.kind == "prompt" else 0


class Schedule(NamedTuple):
    """When adalora's ranks fall, in updates: not before ``first``, no more after ``settled``."""

    first: int
    settled: int


def schedule(steps: int) -> Schedule:
    """An eighth of the updates with the initial ranks and the last half with the final ones, about as in the paper's runs (its appendices)."""
    return Schedule(steps // 8, steps - steps // 2)


def configuration(adapter: Adapter, steps: int) -> PeftConfig:
    """PEFT's configuration of it, for a training of so many updates."""
    from peft import AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType

    if adapter.kind == "prompt":  # each begins as a token of the vocabulary, drawn by the seed (Lester et al., section 3.2)
        return PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=adapter.tokens, prompt_tuning_init="SAMPLE_VOCAB")
    if adapter.kind == "prefix":
        return PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=adapter.tokens)
    if adapter.kind == "adalora":
        when = schedule(steps)
        return AdaLoraConfig(
            task_type=TaskType.CAUSAL_LM,
            init_r=math.ceil(1.5 * adapter.rank),  # as in the paper
            target_r=adapter.rank,
            tinit=when.first,
            tfinal=steps - when.settled,
            total_step=steps,
            lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # any number will do
            lora_dropout=adapter.dropout,
            target_modules="all-linear",
            orth_reg_weight=0.0,  # the worker adds it, once an update: PEFT would with every pass, and to evaluations
        )
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


def adapted(model: PreTrainedModel, adapter: Adapter, steps: int, first: int) -> Any:
    """The model with the adapter beside its weights, which are frozen; the model itself for ``none``.

    ``steps`` are the updates to come, ``first`` is the id of the first virtual token, where the adapter has some.
    """
    if adapter.kind == "none":
        return model
    from peft import get_peft_model

    model.name_or_path = "pretrained_checkpoint"  # goes into adapter_config.json, where a path of this machine has no business
    found = get_peft_model(model, configuration(adapter, steps))
    if adapter.kind == "prompt":
        from llm_assets.training.prompts import look_up

        return look_up(found, first)
    if adapter.kind == "prefix":
        from llm_assets.training.prefixes import stand_before

        return stand_before(found)
    return found


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
    from transformers import AutoModelForCausalLM

    return beside(AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True), adapter)


def beside(model: PreTrainedModel, adapter: Path) -> Any:
    """A model with the adapter beside its weights, ready to answer."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()


def is_prefixed(folder: Path) -> bool:
    """Whether a finetuned model's weights are half of it: a tuned prefix stands beside them, without which they are the checkpoint's."""
    path = folder / FOLDER / "adapter_config.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["peft_type"] == "PREFIX_TUNING"


def refuse_prefixed(folder: Path, name: str) -> None:
    """Raise ``ValueError`` where ``folder``, the artifact ``name``, has a tuned prefix: its weights alone would be taken for the model."""
    if is_prefixed(folder):
        raise ValueError(f"{name}: {UNMERGED}")
