"""What the terminal would show."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType


def drawn(shown: RenderableType) -> str:
    """The text of a table or tree on a wide terminal without colours."""
    file = StringIO()
    Console(file=file, width=300, color_system=None).print(shown)
    return file.getvalue()
