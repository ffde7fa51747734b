"""torchrun with the launcher's line of life: ``python -m llm_assets.training.agent <torchrun's arguments>``."""

from __future__ import annotations

import subprocess

from llm_assets.store.priority import own_group
from llm_assets.training import watch


def place_workers() -> None:
    """Have torchrun start its workers in the session that training belongs into (``own_group``); of itself it gives each one of its own."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    def start(handler: SubprocessHandler, args: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(args, env=env, stdout=handler._stdout, stderr=handler._stderr, **own_group())

    SubprocessHandler._popen = start  # type: ignore[method-assign, assignment]  # torch has no setting for it


if __name__ == "__main__":
    watch.attach()  # before torch, whose import takes seconds in which the launcher may die
    place_workers()

    from torch.distributed.run import main

    main()
