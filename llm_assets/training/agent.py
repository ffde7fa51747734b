"""torchrun with the launcher's line of life: ``python -m llm_assets.training.agent <torchrun's arguments>``."""

from __future__ import annotations

from llm_assets.training import watch

if __name__ == "__main__":
    watch.attach()  # before torch, whose import takes seconds in which the launcher may die

    from torch.distributed.run import main

    main()
