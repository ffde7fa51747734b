"""A lineage as a tree on the terminal: what something stands on below it, each node once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from llm_assets.audit.lineage import Name
from llm_assets.audit.provenance import Lineage, Node, Source

STYLES = {"present": "", "removed": "dim", "missing": "red", "unreadable": "red"}
SHORT = 12  # digits of a hash that are shown
RUN = 8  # characters of a run's id that are shown


def lineage_tree(lineage: Lineage) -> Tree:
    """The answer, its release with gates, and the artifacts it stands on."""
    tree = Tree(Text(f"{lineage.kind} {lineage.wanted}", style="bold"))
    below = tree
    if answer := lineage.answer:
        tree.add(Text(f"answered {_minute(answer.at)}: {', '.join(map(str, answer.entry.get('labels', ())))}"))
    if release := lineage.release:
        run = f", Dagster run {release.run[:RUN]}" if release.run else ""
        below = tree.add(Text(f"release {release.release}, {_minute(release.at)}, approved by {lineage.approved_by or 'nobody'}{run}"))
        below.add(_gates(lineage.gates))
    shown: set[Name] = set()
    for root in lineage.roots:
        if root not in shown:
            _add(below, lineage, root, shown)
    for sentence in lineage.breaks:
        tree.add(Text(f"not complete: {sentence}", style="red"))
    return tree


def _add(tree: Tree, lineage: Lineage, name: Name, shown: set[Name]) -> None:
    node = lineage.nodes[name]
    if name in shown:
        tree.add(Text(f"{node.link} {node.fingerprint[:SHORT]} (above)", style="dim"))
        return
    shown.add(name)
    branch = tree.add(_title(node))
    for source in node.sources:
        branch.add(_source(source))
    for parent in dict.fromkeys(node.inputs.values()):
        _add(branch, lineage, parent, shown)


def _title(node: Node) -> Text:
    text = Text.assemble((node.link, "bold"), f" {node.fingerprint[:SHORT]}", style=STYLES[node.state])
    manifest = node.manifest
    if node.state != "present":
        text.append(f" {node.why}")
    if manifest is None:
        return text
    runs = [f"{kind} {run[:RUN]}" for kind, run in (("Dagster", manifest.dagster_run_id), ("MLflow", node.mlflow_run)) if run]
    commit = manifest.code.get("commit")
    code = [f"commit {commit[:RUN]}{' (dirty)' if manifest.code.get('dirty') else ''}"] if commit else []
    text.append(f" {_minute(manifest.started)}, {manifest.seconds:,.1f} s; {', '.join([*runs, *code])}", style="dim")
    if node.checks:
        text.append("; ").append(_checks(node.checks))
    return text


def _source(source: Source) -> Text:
    known = f", {source.hash[:SHORT]}" if source.hash else ""
    return Text(f"source {source.name}: {source.license}; {source.place}{known}; {source.documents:,} documents", style="cyan")


def _gates(gates: Iterable[Mapping[str, Any]]) -> Text:
    text = Text("gates: ")
    for number, gate in enumerate(gates):
        text.append(", " if number else "").append(_verdict(gate), style="green" if gate["passed"] else "red")
    return text if len(text) > len("gates: ") else Text("gates: none on record", style="red")


def _checks(checks: Iterable[Mapping[str, Any]]) -> Text:
    listed = list(checks)
    bad = [_verdict(check) for check in listed if not check["passed"]]
    if bad:
        return Text(f"{len(listed) - len(bad)} of {len(listed)} checks passed ({', '.join(bad)})", style="yellow")
    return Text(f"{len(listed)} checks passed", style="green")


def _verdict(verdict: Mapping[str, Any]) -> str:
    if verdict["passed"]:
        return f"{verdict['check']} passed"
    return f"{verdict['check']} {'failed' if verdict['blocking'] else 'warned'}: {verdict['description']}"


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")
