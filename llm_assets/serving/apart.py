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

LONGEST_READ = 1_000  # characters of an answer that are read


async def apart(answer: Answer[Any], reader: Generator) -> float | None:
    """Bits per byte that ``reader`` spends on an answer above those that its own release spends.

    None where the answer is empty, or one of the two cannot read it with its prompt at once. Raises ``ApiError`` where the request is none
    that ``reader`` could answer, ``LlamaError`` and ``RefusedError``.
    """
    prompt = type(answer)(answer.request, answer.release, reader).prompt  # in the reader's own tokens
    written, read = await asyncio.gather(bits_per_byte(answer.engine, answer.prompt, answer.text), bits_per_byte(reader, prompt, answer.text))
    return None if written is None or read is None else read - written


async def bits_per_byte(engine: Generator, prompt: Sequence[int], text: str) -> float | None:
    """What a text costs after a prompt; its end is not counted. None for one that is empty or too long."""
    shown = text[:LONGEST_READ]
    ids = engine.tokenizer.encode(shown, add_special_tokens=False).ids
    if not ids or len(prompt) + len(ids) > min(engine.context, LONGEST_BATCH):
        return None
    likely = await engine.likelihood([*prompt, *ids], since=len(prompt))
    return -sum(one.logprob for one in likely) / math.log(2) / len(shown.encode())
