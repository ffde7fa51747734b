"""How far two releases of a decoder are apart: what the one wrote is read by both, and the other one's surprise is counted in bits per byte.

Two decoders word almost every answer otherwise, so that equal answers say nothing. What the writer of an answer spends on it less than
the reader does is an estimate of the Kullback-Leibler divergence of the two (Kullback and Leibler 1951), byte for byte: 0 for equal
models whatever they write, and large for one that writes what the other would not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from llm_assets.serving.answer import Answer
from llm_assets.serving.generation import Generator
from llm_assets.serving.llama_server import LONGEST_BATCH
from llm_assets.serving.rollout import Apart

LONGEST_READ = 1_000  # characters of an answer that are read


async def apart(answer: Answer[Any], reader: Generator) -> Apart | None:
    """What ``reader`` spends on an answer above what its own release spends.

    None where the answer is empty, or one of the two cannot read it with its prompt at once. Raises ``ApiError`` where the request is none
    that ``reader`` could answer, ``LlamaError`` and ``RefusedError``.
    """
    prompt = type(answer)(answer.request, answer.release, reader).prompt  # in the reader's own tokens
    shown = answer.text[:LONGEST_READ]
    written, read = await asyncio.gather(bits_of(answer.engine, answer.prompt, shown), bits_of(reader, prompt, shown))
    return None if written is None or read is None else Apart(read - written, len(shown.encode()))


async def bits_of(engine: Generator, prompt: Sequence[int], text: str) -> float | None:
    """What a text costs after a prompt, in bits; its end is not counted. None for one that is empty or too long."""
    ids = engine.tokenizer.encode(text, add_special_tokens=False).ids
    if not ids or len(prompt) + len(ids) > min(engine.context, LONGEST_BATCH):
        return None
    likely = await engine.likelihood([*prompt, *ids], since=len(prompt))
    return -sum(one.logprob for one in likely) / math.log(2)


def pooled(answers: Sequence[Apart]) -> tuple[float, float]:
    """Bits per byte of two answers or more, all bits over all bytes, and the standard error of that ratio (Cochran 1977, section 2.11).

    A mean over answers of each one's bits per byte would weigh a reply of three bytes as much as one of three hundred, which is
    the steadier by far.
    """
    count, size = len(answers), sum(one.bytes for one in answers)
    ratio = sum(one.bits for one in answers) / size
    left = sum((one.bits - ratio * one.bytes) ** 2 for one in answers)
    return ratio, math.sqrt(left / (count - 1) * count) / size
