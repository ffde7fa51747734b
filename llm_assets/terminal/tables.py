"""Tables on the terminal: what a run would do, and the scorecard beside the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from llm_assets.audit.plan import Step
from llm_assets.environments.environment import PYTHON, Environment

SHOWN = {  # figures of a scorecard
    "single_label": ("accuracy", "macro_f1"),
    "multi_label": ("micro_f1", "macro_f1"),
    "regression": ("r2", "mae"),
    "generation": ("bits_per_byte", "perplexity"),
}
STATE_STYLE = {"reuse": "green", "refused": "red", "make": "yellow", "maybe": "cyan", "act": "dim"}


def plan_table(chain: str, steps: Sequence[Step]) -> Table:
    """One row a link, with time and size as its newest artifact recorded them."""
    table = Table(title=f"Plan of {chain}", box=box.SIMPLE_HEAD)
    for name, justify in (("link", "left"), ("", "left"), ("why", "left"), ("time", "right"), ("size", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for step in steps:
        seconds = f"{step.seconds:,.1f} s" if step.seconds is not None and step.state != "reuse" else ""
        table.add_row(step.link, f"[{STATE_STYLE[step.state]}]{step.state}", step.why, seconds, megabytes(step.size) if step.size else "")
    known = sum(step.seconds or 0 for step in steps if step.state in ("make", "maybe"))
    unknown = [step.link for step in steps if step.state in ("make", "maybe") and step.seconds is None]
    table.caption = f"about {known:,.0f} s" + (f", and {', '.join(unknown)} of unknown cost" if unknown else "")
    return table


def scorecard_table(scorecard: Mapping[str, Any]) -> Table:
    """One row a model, worst first, within 80 columns; the Markdown says more."""
    sizes = ", ".join(f"{scorecard['split'][part]:,} {part}" for part in ("train", "validation", "test"))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Scorecard of {scorecard['chain']}, on the test set",
        caption=f"release {scorecard['release'] or 'none yet'}; examples: {sizes}",
    )
    table.add_column("model", no_wrap=True)
    score, other = SHOWN[scorecard.get("problem", "single_label")]
    for name in (score.replace("_", " "), "95%", other.replace("macro_f1", "F1"), "MB", "p50 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in scorecard["models"]:
        low, high = model[f"test_{score}_interval"]
        table.add_row(
            model["name"],
            f"{model[f'test_{score}']:.4f}",
            f"{low:.3f}-{high:.3f}",
            f"{model[f'test_{other}']:.3f}",
            f"{model['bytes'] / 1e6:,.2f}",
            f"{model['p50_ms']:.1f}" if "p50_ms" in model else "",
        )
    return table


def environment_table(environments: Iterable[Environment]) -> Table:
    """One row an environment: what for, whether it is there and how large, what of it was run."""
    table = Table(box=box.SIMPLE_HEAD, caption="llm-assets env NAME makes one, --remove deletes it")
    for column in ("name", "for", "here", "Python", "was run"):
        table.add_column(column, no_wrap=column == "name")
    for one in environments:
        here = f"made, {one.size / 1e9:,.1f} GB" if one.is_made else f"not made, {one.download / 1e9:,.1f} GB to download"
        table.add_row(one.name, one.purpose, here, ".".join(map(str, PYTHON)), one.tried)
    return table


def megabytes(size: float) -> str:
    """Bytes as megabytes of 10^6."""
    return f"{size / 1e6:,.2f} MB"
