"""Whether llama.cpp answers greedily as transformers does, over the same weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.request import Request

from llm_assets.serving.loopback import open_url

KEY = "unrounded"  # of a server that only this process asks
SECONDS = 600.0  # that one answer may take
TIE = 0.02  # nats between two tokens that rounding of activations to F16, which llama.cpp does and torch does not, may turn around


class Engine(Protocol):
    """What answers: ``Generator``, or ``Unrounded``."""

    async def complete(self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str = "") -> dict[str, Any]:
        """llama.cpp's last event."""


class Unrounded:
    """llama.cpp that rounds as little as torch: over a ``file`` in float32, with float32 keys and values, and without flash attention.

    It runs in this process. What parts from transformers here is no matter of rounding: the weights were written wrong.
    """

    def __init__(self, file: Path, context: int) -> None:
        import xllamacpp

        from llm_assets.serving.llama_server import parameters

        settings = parameters(str(file), context, 1, KEY)
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(settings)

    async def complete(self, prompt: Sequence[int], sampling: Mapping[str, Any], adapter: str = "") -> dict[str, Any]:
        """llama.cpp's last event; there is no adapter."""
        body = json.dumps({"prompt": list(prompt), **sampling}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        with open_url(Request(f"{self._server.listening_address}/completion", body, headers), SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


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
    folder: Path, engine: Engine, prompts: Sequence[Sequence[int]], length: int, adapter: tuple[str, Path] | None = None, rounded: bool = True
) -> list[Parting]:
    """The prompts (token ids) whose greedy answers of ``length`` tokens differ. The folder's weights are ``rounded`` to F16, as the engine's are.

    ``adapter`` is the engine's name of one, and PEFT's folder of it, which then stands beside the weights unmerged.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from llm_assets.training.adapters import beside

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float16 if rounded else torch.float32, local_files_only=True, use_safetensors=True
    )
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


async def _answers(engine: Engine, prompts: Sequence[Sequence[int]], length: int, adapter: str) -> list[list[int]]:
    asked = {"temperature": 0, "n_predict": length, "return_tokens": True}
    return [(await engine.complete(prompt, asked, adapter))["tokens"] for prompt in prompts]


def _ends(model: Any) -> set[int]:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
