"""Pictures a link puts into its artifact's ``plots/`` folder; the asset shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURE_SIZE = (6.4, 3.2)  # inches; 640 x 320 pixels at 100 dots an inch


def histogram(directory: Path, name: str, values: Sequence[float] | NDArray[Any], title: str, unit: str, bins: int = 40) -> None:
    """Draw the distribution of ``values`` as ``plots/<name>.png``."""
    _draw(directory, name, title, lambda axes: axes.hist(values, bins=bins), unit, "count")


def bars(directory: Path, name: str, values: Mapping[str, float], title: str, unit: str) -> None:
    """Draw one horizontal bar a key, in the mapping's order, as ``plots/<name>.png``."""
    _draw(directory, name, title, lambda axes: axes.barh(list(values), list(values.values())), unit, "")


def curves(directory: Path, name: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x: str, y: str) -> None:
    """Draw one line a key, each given as (x values, y values), as ``plots/<name>.png``."""

    def draw(axes) -> None:  # type: ignore[no-untyped-def]  # matplotlib is imported late
        for label, (abscissa, ordinate) in series.items():
            axes.plot(abscissa, ordinate, label=label, marker="." if len(abscissa) == 1 else None)  # a line of one point shows nothing
        axes.legend()

    _draw(directory, name, title, draw, x, y)


def matrix(directory: Path, name: str, counts: Mapping[str, Mapping[str, int]], title: str, x: str, y: str) -> None:
    """Draw counts by row key, then column key, as ``plots/<name>.png``; the colour is a count's share of its row."""

    def draw(axes) -> None:  # type: ignore[no-untyped-def]
        columns = list(next(iter(counts.values())))
        shares = [[count / max(sum(row.values()), 1) for count in row.values()] for row in counts.values()]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(counts)), list(counts))
        for line, (row, cells) in enumerate(zip(shares, counts.values(), strict=True)):
            for column, (share, count) in enumerate(zip(row, cells.values(), strict=True)):
                axes.text(column, line, f"{count:,}", ha="center", va="center", color="white" if share > 0.5 else "black")

    _draw(directory, name, title, draw, x, y)


def _draw(directory: Path, name: str, title: str, draw, x: str, y: str) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_SIZE, dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    folder = directory / "plots"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.png")
