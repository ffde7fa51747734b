"""Pairs of replies to one prompt, in tokens, as each method of TRL's reads them; no torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from llm_assets.store.files import write_atomic
from llm_assets.training.chat import Chat, Messages
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Method

Row = dict[str, Any]


class Pair(NamedTuple):
    """What was said, what was replied, and what would have been a worse reply; a reply that somebody judged by itself lacks the other one."""

    doc_id: str  # the dialogue's
    split: str
    prompt: list[dict[str, str]]  # turns, the user's last
    chosen: str | None
    rejected: str | None

    @property
    def replies(self) -> list[str]:
        """The chosen one, then the rejected one."""
        return [reply for reply in (self.chosen, self.rejected) if reply is not None]


class Encoded(NamedTuple):
    """A pair in tokens: each reply follows the prompt, and ends its turn; one that lacks has none."""

    doc_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def encode(pairs: Sequence[Pair], chat: Chat, longest: int) -> list[Encoded]:
    """The pairs in ``chat``'s tokens, a prompt's beginning cut off (``Chat.ending``) where prompt and longer reply have more than ``longest``.

    A pair of which no token of the prompt would be left, beside those of a learnt one, is left out.
    """
    prompts = chat.encode([pair.prompt for pair in pairs], prompt=True)
    spoken = iter(chat.encode([replied(pair.prompt, reply) for pair in pairs for reply in pair.replies]))
    found = []
    for pair, prompt in zip(pairs, prompts, strict=True):
        begins = len(prompt.ids)
        sides = [None if reply is None else next(spoken) for reply in (pair.chosen, pair.rejected)]
        ends = [[] if one is None else one.ids[begins : len(one.answers) - one.answers[::-1].index(True)] for one in sides]
        room = longest - max(map(len, ends))
        if room > len(chat.virtual):
            found.append(Encoded(pair.doc_id, chat.ending(prompt, room).ids, *ends))
    return found


def replied(prompt: Messages, reply: str) -> list[dict[str, str]]:
    """The conversation with that reply."""
    return [*(dict(turn) for turn in prompt), {"role": "assistant", "content": reply}]


def write(path: Path, pairs: Sequence[Encoded], method: Method, seed: int) -> int:
    """The examples that a method makes of the pairs, as Parquet; returns how many they are, and writes nothing where there is none.

    A file that holds them already stays as it is: what TRL keeps of it is found by the file's time (`training/preference.py`).
    """
    import pyarrow
    import pyarrow.parquet

    rows = EXAMPLES[method](pairs, seed) if pairs else []
    if not rows:
        return 0
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    content = stream.getvalue().to_pybytes()
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, content)
    return len(rows)


def _paired(pairs: Sequence[Encoded], seed: int) -> list[Row]:
    return [{"doc_id": one.doc_id, "prompt_ids": one.prompt, "chosen_ids": one.chosen, "rejected_ids": one.rejected} for one in pairs]


def _judged(pairs: Sequence[Encoded], seed: int) -> list[Row]:
    """Each reply by itself, desirable or not, in an order drawn from the seed.

    ``KL_completion_ids`` is the reply of the example before, seldom one to the same prompt: how likely such replies became says how far
    the model has drifted.
    """
    rows = [
        {"doc_id": one.doc_id, "prompt_ids": one.prompt, "completion_ids": reply, "label": desirable}
        for one in pairs
        for reply, desirable in ((one.chosen, True), (one.rejected, False))
        if reply
    ]
    rows = [rows[place] for place in numpy.random.default_rng([seed, len(rows)]).permutation(len(rows)).tolist()]
    return [{**row, "KL_completion_ids": before["completion_ids"]} for before, row in zip([rows[-1], *rows], rows, strict=False)]


def _joined(pairs: Sequence[Encoded], seed: int) -> list[Row]:
    """Each reply with its prompt before it, and labels on the reply alone."""
    return [{"doc_id": one.doc_id, **_labelled("chosen", one.prompt, one.chosen), **_labelled("rejected", one.prompt, one.rejected)} for one in pairs]


def _labelled(name: str, prompt: list[int], reply: list[int]) -> Row:
    ids = [*prompt, *reply]
    return {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids), f"{name}_labels": [IGNORED] * len(prompt) + reply}


EXAMPLES: dict[Method, Callable[[Sequence[Encoded], int], list[Row]]] = {"dpo": _paired, "kto": _judged, "orpo": _joined}
