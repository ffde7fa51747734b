"""Pages a link puts into its artifact's ``pages/`` folder; the gateway serves them, and the asset links to them.

A page shows text only in masked pieces of at most 80 characters: what an artifact shows goes when the artifact goes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
table { border-collapse: collapse } th, td { border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: left; vertical-align: top }
th { position: sticky; top: 0; background: #fff } td { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 40rem }
"""


def table(directory: Path, name: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
    """Write one table as the page ``pages/<name>.html``; every value is escaped."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    paragraph = f"<p>{html.escape(note)}</p>" if note else ""
    write(directory, name, title, f"<h1>{html.escape(title)}</h1>{paragraph}<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>")


def write(directory: Path, name: str, title: str, body: str) -> None:
    """Write ``body``, which is HTML already, as the page ``pages/<name>.html``; it needs nothing from outside."""
    folder = directory / "pages"
    folder.mkdir(exist_ok=True)
    frame = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style><body>{body}</body></html>\n'
    )
    (folder / f"{name}.html").write_text(frame, encoding="utf-8")
