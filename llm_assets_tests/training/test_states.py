"""Whole states from the parts of two ranks, laid out by hand as DeepSpeed lays them out."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from deepspeed.utils.tensor_fragment import fragment_address

from llm_assets.training import checkpoints, states
from llm_assets.training.repartition import _slice

A, B = torch.arange(6.0).reshape(2, 3), torch.arange(10.0, 13.0)  # nine numbers: two ranks get five and four
COUNTS = {"global_steps": 5, "global_samples": 40, "skipped_steps": 0, "lr_scheduler": {"last_epoch": 5, "_last_lr": [0.1]}, "buffer_names": []}
SHAPES = [OrderedDict(a=A.shape, b=B.shape)]
STEP = torch.tensor(5.0)


def written(folder: Path, files: dict[str, object]) -> Path:
    (folder / "global_step5").mkdir(parents=True)
    (folder / "latest").write_text("global_step5")
    for name, content in files.items():
        torch.save(content, folder / "global_step5" / name)
    checkpoints.seal(folder)
    return folder


def stage_0(folder: Path) -> Path:
    moments = {number: {"step": STEP, "exp_avg": weight * 2} for number, weight in enumerate((A, B))}
    module = OrderedDict(a=A, b=B, tied=A)
    return written(folder, {"mp_rank_00_model_states.pt": {**COUNTS, "module": module, "optimizer": {"state": moments}}})


def stage_2(folder: Path) -> Path:
    flat = torch.cat([A.flatten(), B])
    first = OrderedDict(a=fragment_address(start=0, numel=5))
    places = [first, OrderedDict(a=fragment_address(start=0, numel=1), b=fragment_address(start=1, numel=3))]
    files: dict[str, object] = {"mp_rank_00_model_states.pt": {**COUNTS, "module": {}, "param_shapes": SHAPES}}
    for rank, part in enumerate((flat[:5], flat[5:])):
        state = {0: {"step": STEP, "exp_avg": torch.cat([part * 2, torch.zeros(rank)])}}  # the last rank's moments are padded, its weights not
        files[f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"] = {
            "optimizer_state_dict": {
                "single_partition_of_fp32_groups": [part], "base_optimizer_state": {"state": state}, "param_slice_mappings": [places[rank]],
            }
        }  # fmt: skip
    return written(folder, files)


def stage_3(folder: Path) -> Path:
    files: dict[str, object] = {}
    for rank in (0, 1):
        part = torch.cat([A.flatten()[3 * rank : 3 * rank + 3], torch.cat([B, torch.zeros(1)])[2 * rank : 2 * rank + 2]])
        state = {"optimizer_state_dict": {"state": {0: {"step": STEP, "exp_avg": part * 2}}}, "fp32_flat_groups": [part]}
        files[f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"] = {"optimizer_state_dict": state}
        files[f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"] = {**COUNTS, "module": {}, "param_shapes": SHAPES}
    return written(folder, files)


@pytest.mark.parametrize("make, layout", [(stage_0, (0, 1, False)), (stage_2, (1, 2, False)), (stage_3, (3, 2, False))])
def test_parts_are_put_together(tmp_path: Path, make, layout: tuple[int, int, bool]) -> None:
    checkpoint = make(tmp_path / "checkpoint-5")
    found = states.read(checkpoint)
    assert found.weights.keys() == {"a", "b"} and torch.equal(found.weights["a"], A) and torch.equal(found.weights["b"], B)
    assert torch.equal(found.tensors["a"]["exp_avg"], 2 * A) and torch.equal(found.tensors["b"]["exp_avg"], 2 * B)
    assert found.scalars == {"step": STEP} and found.counts["global_samples"] == 40 and found.schedule["last_epoch"] == 5
    assert states.layout(checkpoint) == layout


def test_the_layout_of_a_run_is_that_of_what_it_writes(tmp_path: Path) -> None:
    assert states.Layout.of(0, 2, True) == (0, 1, False) and states.Layout.of(1, 2, True) == states.Layout.of(2, 2, True) == (1, 2, True)
    checkpoint = stage_2(tmp_path / "checkpoint-5")
    for path in (checkpoint / "global_step5").glob("zero*"):
        path.rename(path.with_name(f"bf16_{path.name}"))
    assert states.layout(checkpoint) == states.Layout.of(2, 2, True)


def test_stage_0_in_bfloat16_is_refused(tmp_path: Path) -> None:
    other = {**COUNTS, "module": OrderedDict(a=A), "optimizer": {"optimizer_state_dict": {}}}
    with pytest.raises(checkpoints.CheckpointError, match="ZeRO-0 in bfloat16"):
        states.read(written(tmp_path / "checkpoint-5", {"mp_rank_00_model_states.pt": other}))


def test_a_slice_is_padded_at_the_end() -> None:
    assert [_slice(B, rank, 2, 2).tolist() for rank in (0, 1)] == [[10, 11], [12, 0]]
    assert [_slice(A, rank, 2, 3).tolist() for rank in (0, 1)] == [[0, 1, 2], [3, 4, 5]]


def test_nothing_is_loaded_without_its_hash(tmp_path: Path) -> None:
    checkpoint = stage_2(tmp_path / "checkpoint-5")
    (checkpoint / "added").write_text("")
    with pytest.raises(checkpoints.CheckpointError, match=r"added do not match"):
        states.read(checkpoint)
    (checkpoint / "added").unlink()
    (checkpoint / checkpoints.HASHES).unlink()
    with pytest.raises(checkpoints.CheckpointError, match=r"has no hashes\.json"):
        states.read(checkpoint)


def test_a_class_that_deepspeed_does_not_write_is_not_loaded(tmp_path: Path) -> None:
    checkpoint = written(tmp_path / "checkpoint-5", {"mp_rank_00_model_states.pt": {**COUNTS, "module": Path("x")}})
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        states.read(checkpoint)
