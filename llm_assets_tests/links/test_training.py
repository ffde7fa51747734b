from __future__ import annotations

import pytest

from llm_assets.links.finetuned_model import FinetunedModelConfig
from llm_assets.links.making import recipe_of
from llm_assets.links.pretrained_checkpoint import LINK, PretrainedCheckpointConfig
from llm_assets.links.training import PLACEMENT


def fingerprint(**settings: object) -> str:
    return recipe_of(LINK, PretrainedCheckpointConfig(**settings), {}, seed=1).fingerprint


def test_a_machine_with_one_device_goes_on_from_what_two_began() -> None:
    two = fingerprint(processes=2, micro_batch=16, accumulation=1)
    assert fingerprint(processes=1, micro_batch=16, accumulation=2) == fingerprint(processes=1, micro_batch=8, accumulation=4) == two
    assert fingerprint(processes=1, micro_batch=16, accumulation=1) != two  # another batch learns something else


@pytest.mark.parametrize(
    "settings",
    [
        {"zero_stage": 3}, {"device": "cuda"}, {"zero_stage": 3, "offload_parameters": "cpu"}, {"zero_stage": 1, "offload_optimizer": "cpu"},
        {"activation_checkpointing": True}, {"torch_compile": True}, {"checkpoint_seconds": 1},
    ],
)  # fmt: skip
def test_how_work_is_laid_out_is_no_part_of_the_recipe(settings: dict[str, object]) -> None:
    assert fingerprint(**settings) == fingerprint()


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"}, {"beta1": 0.8}, {"beta2": 0.9}, {"epsilon": 1e-6}, {"schedule": "cosine"}, {"decay": 0.5}, {"learning_rate": 1},
        {"warmup": 0}, {"weight_decay": 0}, {"max_gradient_norm": 2}, {"initializer_range": 0.1}, {"micro_batch": 32},
    ],
)  # fmt: skip
def test_what_is_learnt_is(settings: dict[str, object]) -> None:
    assert fingerprint(**settings) != fingerprint()


def test_both_links_that_train_leave_the_layout_out() -> None:
    for config in (PretrainedCheckpointConfig(), FinetunedModelConfig()):
        assert not set(PLACEMENT) & config.recipe().keys() and config.recipe()["batch"] == 32
