from __future__ import annotations

from pathlib import Path

from llm_assets.training import checkpoints


def checkpoint(scratch: Path, step: int, sealed: bool = True) -> Path:
    folder = scratch / f"checkpoint-{step}"
    (folder / "global_step").mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "global_step" / "state.pt").write_bytes(bytes(100))
    if sealed:
        checkpoints.seal(folder)
    return folder


def test_the_newest_sealed_one_is_taken_by_number_not_by_name(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == newest


def test_unfinished_changed_missing_and_added_files_are_passed_over(tmp_path: Path) -> None:
    good = checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 5, sealed=False)
    (checkpoint(tmp_path, 4) / "global_step" / "state.pt").write_bytes(bytes(99) + b"\1")
    (checkpoint(tmp_path, 3) / "trainer_state.json").unlink()
    (checkpoint(tmp_path, 2) / "scheduler.pt").write_bytes(b"not hashed")
    assert checkpoints.newest(tmp_path) == good
