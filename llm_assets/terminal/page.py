"""An answer of the terminal as a page too, which the gateway shows to operators."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import typer

from llm_assets.serving.state import audit_page_url
from llm_assets.store.files import write_atomic
from llm_assets.store.home import data_root

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 140  # characters of a line
HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>llm-assets</title><style>{stylesheet}body{{margin:2em}}</style>
<pre style="font:13px/1.4 ui-monospace,monospace;white-space:pre-wrap"><code>{code}</code></pre>
</html>
"""


def write_page(command: str, wanted: str, *parts: RenderableType) -> None:
    """Write what a command shows to ``audit/pages/`` in the data root and say where the gateway shows it; the next answer replaces it."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=WIDTH)
    console.print(f"llm-assets {command} {wanted}", style="bold", markup=False)
    for part in parts:
        console.print(part, markup=False)
    name = f"{command}-{re.sub(r'[^A-Za-z0-9_-]+', '-', wanted) or 'all'}.html"
    write_atomic(data_root() / "audit" / "pages" / name, console.export_html(code_format=HTML))
    typer.echo(f"page: {audit_page_url(data_root(), name)}", err=True)
