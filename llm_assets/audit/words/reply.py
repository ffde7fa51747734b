"""What an auditor is told, in one form: lines and trees, drawn on the terminal, as Markdown in Dagster and as a page on the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.audit.page import STYLE
from llm_assets.serving.state import audit_page_url
from llm_assets.store.files import write_atomic
from llm_assets.store.journal import now
from llm_assets.store.verdict import Verdict, failed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.tree import Tree

    Part = str | Tree

MARKS = re.compile(r"[\\`*\[\]<>#|~&]|(?<![^\W_])_|_(?![^\W_])")  # what Markdown takes for its own; an underscore only at a word's edge
BEGINS = re.compile(r"^(\d+)([.)])|^([-+=])")  # of a line: an item of a list, or a rule
LINES = str.maketrans({"\n": "&#10;", "\r": "&#13;"})  # a line of a text ends no line of Markdown, and stands on the page as it came


@dataclass(frozen=True)
class Reply:
    """The answer to one question."""

    command: str
    wanted: str  # what was asked about; it names the page, so never a text
    parts: Sequence[Part]
    figures: Mapping[str, int | float]
    verdict: Verdict | None = None  # where the answer is one that may be bad news
    unquoted: Sequence[Part] | None = None  # the same without a piece of a text, for records that are not cleaned; None: there is none in it

    @property
    def markdown(self) -> str:
        """The answer for Dagster's event log, where no piece of a document's text may stand."""
        return as_markdown(self.parts if self.unquoted is None else self.unquoted)


def as_markdown(parts: Sequence[Part]) -> str:
    """A paragraph a line; of a tree its label with nested lists below."""
    return "\n\n".join(_escaped(part) if isinstance(part, str) else "\n".join(_tree(part)) for part in parts) + "\n"


def write_page(home: Path, reply: Reply) -> str:
    """Keep an answer as a page in ``audit/pages/`` of a data root until the next one to the same question; where the gateway shows it."""
    name = f"{reply.command}-{re.sub(r'[^A-Za-z0-9_-]+', '-', reply.wanted) or 'all'}.html"
    write_atomic(home / "audit" / "pages" / name, _page(reply))
    return audit_page_url(home, name)


def _page(reply: Reply) -> str:
    """One page that stands alone; its title is red where the answer is bad news."""
    from markdown_it import MarkdownIt

    title = escape(f"llm-assets {reply.command} {reply.wanted}".rstrip())
    bad = reply.verdict is not None and bool(failed([reply.verdict]))
    heading = f'<h1 class="failed">{title}</h1>' if bad else f"<h1>{title}</h1>"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>\n'
        f"{heading}\n<p>answered {now()[:16].replace('T', ' ')} UTC</p>\n"
        f"{MarkdownIt('commonmark', {'html': False}).render(as_markdown(reply.parts))}</html>\n"
    )


def _tree(tree: Tree, depth: int = -1) -> Iterator[str]:
    label = _escaped(_plain(tree.label))
    yield f"**{label}**\n" if depth < 0 else f"{'  ' * depth}- {label}"
    for branch in tree.children:
        yield from _tree(branch, depth + 1)


def _plain(label: RenderableType) -> str:
    from rich.text import Text

    return label.plain if isinstance(label, Text) else str(label)


def _escaped(line: str) -> str:
    marked = MARKS.sub(r"\\\g<0>", line.strip()).translate(LINES)
    return BEGINS.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else f"\\{found[3]}", marked)
