"""Whether llama.cpp answers greedily as transformers does, over the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.serving.generation import Generator

TIE = 0.02  # nats between two tokens that rounding of activations to F16, which llama.cpp does and torch does not, may turn around


@dataclass(frozen=True)
class Parting:
    """Where two answers to a prompt part."""

    prompt: int  # which
    position: int  # of the first token that differs
    nats: float  # between the two tokens there, by transformers

    @property
    def is_tie(self) -> bool:
        """Whether the two tokens were as good as equally likely."""
        return self.nats <= TIE


def partings(
    folder: Path, engine: Generator, prompts: Sequence[Sequence[int]], length: int, adapter: tuple[str, Path] | None = None
) -> list[Parting]:
    """The prompts (token ids) whose greedy answers of ``length`` tokens differ. The folder's weights are rounded to F16, as the engine's are.

    ``adapter`` is the engine's name of one, and PEFT's folder of it, which then stands beside the weights unmerged.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from llm_assets.training.adapters import beside

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, local_files_only=True, use_safetensors=True)
    model = beside(model.float(), adapter[1]) if adapter else model.float().eval()
    ends = _ends(model)
    answers = asyncio.run(_answers(engine, prompts, length, adapter[0] if adapter else ""))
    theirs = [[token for token in answer if token not in ends] for answer in answers]
    found = []
    for number, (prompt, other) in enumerate(zip(prompts, theirs, strict=True)):
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            said = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        mine = [token for token in said.sequences[0, ids.shape[1] :].tolist() if token not in ends]
        if mine == other:
            continue
        place = next((at for at, (one, two) in enumerate(zip(mine, other, strict=False)) if one != two), min(len(mine), len(other)))
        scores = said.logits[place][0].log_softmax(-1)
        rival = scores[other[place]] if place < len(other) else max(scores[end] for end in ends)
        found.append(Parting(number, place, float(scores.max() - rival)))
    return found


async def _answers(engine: Generator, prompts: Sequence[Sequence[int]], length: int, adapter: str) -> list[list[int]]:
    asked = {"temperature": 0, "n_predict": length, "return_tokens": True}
    return [(await engine.complete(prompt, asked, adapter))["tokens"] for prompt in prompts]


def _ends(model: Any) -> set[int]:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
