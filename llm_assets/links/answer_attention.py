"""The page ``attention`` of an encoder-decoder: where it looked in the source for each piece of a few held-out answers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from llm_assets.corpus.documents import EVIDENCE_LENGTH
from llm_assets.corpus.pii import excerpt
from llm_assets.evaluation import generation
from llm_assets.links import pages
from llm_assets.links.assistant_scores import Asked, Limits
from llm_assets.links.link import Bench

if TYPE_CHECKING:
    from llm_assets.evaluation.encoder_decoder import Looked

SHOWN = 3  # answers of each task
NAME = "attention"
NOTE = (
    "Test documents of each task. A row is a piece of the model's own answer, a column a piece of what it read; a cell the attention from the one "
    f"to the other, the mean of the heads of the decoder's last layer, so that a row adds up to 1. Of longer texts the first {EVIDENCE_LENGTH} "
    "characters are shown, and the last column is the rest of the source. Attention says where a layer looked, not why an answer was given."
)
REST = "…"


def show_attention(bench: Bench, limits: Limits, max_length: int, asked: Asked) -> None:
    """Write the page from the model in ``bench.directory``; a text with personal data to mask in what would be shown is passed over."""
    from llm_assets.evaluation.encoder_decoder import EncoderDecoder

    model = EncoderDecoder(bench.directory, bench.directory, max_length)
    parts = []
    for measure in generation.MEASURES:
        for place in [place for place in asked.of("test", measure) if _shows(asked.messages[place][0]["content"])][:SHOWN]:
            looked = model.looked(asked.messages[place][:1], limits.answer_tokens)
            if _shows("".join(looked.answer)):
                parts.append(f"<h2>{html.escape(measure)}</h2>{as_table(looked)}")
    pages.write(bench.directory, NAME, "Where answers looked", f"<h1>Where answers looked</h1><p>{html.escape(NOTE)}</p>{''.join(parts)}")


def _shows(text: str) -> bool:
    """Whether the beginning of a text can be shown as it is."""
    return excerpt(text) == text[:EVIDENCE_LENGTH]


def as_table(looked: Looked) -> str:
    """One answer as HTML: its pieces downwards, the source's across, each cell as dark as its weight."""
    columns, rows = _within(looked.source), _within(looked.answer)
    head = "".join(f"<th>{html.escape(piece)}</th>" for piece in [*looked.source[:columns], REST])
    lines = []
    for piece, weights in zip(looked.answer[:rows], looked.weights, strict=False):
        shown = [*weights[:columns], weights[columns:].sum()]
        cells = "".join(f'<td style="background: rgba(31, 119, 180, {weight:.2f})">{weight:.2f}</td>' for weight in shown)
        lines.append(f"<tr><th>{html.escape(piece)}</th>{cells}</tr>")
    said = html.escape(f"{''.join(looked.source[:columns])} → {''.join(looked.answer[:rows])}")  # whole, so that who looks for a text finds it
    return f"<table><caption>{said}</caption><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _within(pieces: Sequence[str]) -> int:
    """How many of the pieces, from the first, make up as many characters as may be shown."""
    return sum(end <= EVIDENCE_LENGTH for end in accumulate(map(len, pieces)))
