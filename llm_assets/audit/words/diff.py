"""What changed between two releases, runs or artifacts, as a tree."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from rich.tree import Tree

from llm_assets.audit.diff import Behaviour, Diff, Figure, LinkChange, RowChange
from llm_assets.audit.words.reply import Reply

SHORT = 12  # digits of a fingerprint that are shown
LISTED = 12  # lines of a part that are shown; --json has all


def diffed(found: Diff) -> Reply:
    """The whole of it; as numbers how much of each kind there is, and what figures with an interval gained."""
    figures: dict[str, int | float] = {
        "links_changed": sum(change.before != change.after for change in found.links),
        "sources_changed": len(found.sources),
        "rules_changed": len(found.rules),
        **{f"{change.link}_{name}": count for change in found.rows for name, count in (("came", change.added), ("went", change.gone))},
    }
    for figure in found.figures:
        if figure.before is not None and figure.after is not None and figure.after_interval:
            figures[f"{figure.name}_gain"] = figure.after - figure.before
    if told := found.behaviour:
        figures |= {"answers_changed": told.changed, "mended": told.mended, "spoiled": told.spoiled, "mean_gain": told.difference}
    return Reply("diff", f"{found.before} {found.after}", [diff_tree(found)], figures)


def diff_tree(found: Diff) -> Tree:
    """One part each for links, sources, rules, rows, figures and answers; a part without a change says so."""
    tree = Tree(Text(f"{found.before} -> {found.after}", style="bold"))
    links = tree.add("links")
    for change in found.links:
        _add_link(links, change)
    _add(tree, "sources", found.sources)
    _add(tree, "documents dropped by rule", [f"{rule.link}: {rule.rule} {rule.before:,} -> {rule.after:,}" for rule in found.rules])
    _add(tree, "documents", [_rows(change) for change in found.rows])
    _add(tree, "figures", [_figure(figure) for figure in found.figures])
    _add(tree, "answers", list(_behaviour(found.behaviour)) if found.behaviour else [])
    for note in found.notes:
        tree.add(Text(f"note: {note}", style="yellow"))
    return tree


def _add(tree: Tree, title: str, lines: list[str]) -> None:
    branch = tree.add(Text(title if lines else f"{title}: no change", style="" if lines else "dim"))
    for line in lines[:LISTED]:
        branch.add(Text(line))
    if len(lines) > LISTED:
        branch.add(f"and {len(lines) - LISTED} more")


def _add_link(tree: Tree, change: LinkChange) -> None:
    if change.before == change.after:
        tree.add(Text(f"{change.link} {(change.before or '')[:SHORT]}: the same", style="dim"))
        return
    old, new = ((one or "none")[:SHORT] for one in (change.before, change.after))
    _add(tree, f"{change.link} {old} -> {new}", change.changes or ["only what it was made from"])


def _rows(change: RowChange) -> str:
    return f"{change.link}: {change.before:,} -> {change.after:,}; {change.added:,} came, {change.gone:,} went"


def _figure(figure: Figure) -> str:
    sides = ((figure.before, figure.before_interval), (figure.after, figure.after_interval))
    return f"{figure.name}: {' -> '.join(_number(value, interval) for value, interval in sides)}"


def _number(value: float | None, interval: Iterable[float] | None) -> str:
    shown = "none" if value is None else f"{value:,.4g}"
    return f"{shown} ({', '.join(f'{end:.3f}' for end in interval)})" if interval else shown


def _behaviour(found: Behaviour) -> Iterable[str]:
    low, high = found.interval
    yield f"{found.changed:,} of {found.documents:,} test documents: {found.mended:,} mended, {found.spoiled:,} spoiled"
    yield f"mean gain a document {found.difference:+.4f}, 95% interval {low:+.4f} to {high:+.4f}"
    for row in found.samples:
        yield f"{row['doc_id']} ({row['label']}): {row['before']} -> {row['after']}"
