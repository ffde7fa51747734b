"""A lineage drawn: as an SVG graph, and as one HTML page in which each node opens. Both stand alone: no script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from llm_assets.audit.graph import Box, Edge, svg
from llm_assets.audit.lineage import Name
from llm_assets.audit.provenance import Lineage, Node, Source

SHORT = 12  # characters of a fingerprint in a box
CLIPPED = 30  # characters of a line in a box
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:1100px;margin:2em auto;padding:0 1em}
summary{cursor:pointer;padding:.35em 0}summary b{display:inline-block;min-width:13em}
details{border-bottom:1px solid #ddd}details[open]{background:#fafafa}details>*:not(summary){margin-left:1.2em}
table{border-collapse:collapse;margin:.4em 0 1em}td,th{text-align:left;padding:.15em .9em .15em 0;vertical-align:top}
code,pre{font:13px/1.4 ui-monospace,monospace}pre{white-space:pre-wrap;overflow-wrap:anywhere}
.failed,.missing,.unreadable{color:#a40000}.removed{color:#666}figure{overflow-x:auto;margin:1em 0}
"""


def lineage_svg(lineage: Lineage, linked: bool = False) -> str:
    """The graph of a lineage: sources above, the answer or release below. ``linked`` boxes lead to their nodes on the page."""
    boxes: dict[str, Box] = {}
    edges: list[Edge] = []
    for node in lineage.nodes.values():
        target = f"#{_anchor(node.name)}" if linked else None
        for source in node.sources:
            boxes[f"source {source.name}"] = Box(source.name, (_clip(source.license), f"{source.documents:,} documents"), "source", target)
            edges.append((f"source {source.name}", _id(node.name)))
        made = node.manifest.started[:16].replace("T", " ") if node.manifest else ""
        detail = made if node.state == "present" else node.state
        boxes[_id(node.name)] = Box(node.link, (node.fingerprint[:SHORT], detail), node.state, target)
        edges += [(_id(parent), _id(node.name)) for parent in dict.fromkeys(node.inputs.values())]
    if release := lineage.release:
        boxes["release"] = Box(release.release, (f"released {release.at[:16].replace('T', ' ')}", f"approved by {lineage.approved_by}"), "release")
        edges += [(_id(root), "release") for root in lineage.roots]
    if answer := lineage.answer:
        boxes["answer"] = Box("answer", (_clip(answer.id), answer.at[:16].replace("T", " ")), "release")
        edges.append(("release", "answer"))
    return svg(boxes, edges)


def lineage_page(lineage: Lineage) -> str:
    """The page of a lineage: the graph, and a part for each node that opens to its checks, config, code, runs and figures."""
    title = f"Lineage of {lineage.wanted}"
    parts = [f"<h1>{escape(title)}</h1>", *_breaks(lineage), *_facts(lineage), f"<figure>{lineage_svg(lineage, linked=True)}</figure>"]
    parts += [_details(node) for node in reversed(lineage.nodes.values())]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _breaks(lineage: Lineage) -> Iterator[str]:
    for sentence in lineage.breaks:
        yield f'<p class="missing">Not complete: {escape(sentence)}</p>'


def _facts(lineage: Lineage) -> Iterator[str]:
    rows: list[tuple[str, str]] = []
    if answer := lineage.answer:
        rows += [("answer", answer.id), ("answered at", answer.at)]
        rows += [("labels", ", ".join(map(str, answer.entry.get("labels", ()))))]
    if release := lineage.release:
        rows += [("release", release.release), ("released at", release.at), ("approved by", lineage.approved_by or "nobody")]
        rows += [("Dagster run", release.run or "none")]
    rows += [("licences", ", ".join(lineage.licenses) or "none stated")]
    yield _table((), rows)
    if lineage.gates:
        yield "<h2>Gates</h2>" + _checks(lineage.gates)
    if lineage.obligations:
        yield "<h2>What the licences demand</h2>" + _list(str(one) for one in lineage.obligations)


def _details(node: Node) -> str:
    recorded = node.manifest
    rows: list[tuple[str, str]] = []
    if recorded:
        code = recorded.code
        dirty = " with uncommitted changes" if code.get("dirty") else ""
        version = f"{recorded.recipe.get('link')} version {recorded.recipe.get('version')}"
        rows = [
            ("fingerprint", node.fingerprint), ("data version", recorded.data_version), ("made", f"{recorded.started} in {recorded.seconds:g} s"),
            ("Dagster run", recorded.dagster_run_id or "none"), ("MLflow run", node.mlflow_run or "none"),
            ("git commit", f"{code.get('commit') or 'none'}{dirty}"), ("code", f"{version}, hash {code.get('hash')}"),
            ("seed", str(recorded.recipe.get("seed"))), ("licences", ", ".join(recorded.licenses) or "none stated"),
            ("libraries", ", ".join(f"{name} {version}" for name, version in recorded.libraries.items())), ("size", f"{recorded.size:,} bytes"),
        ]  # fmt: skip
    parts = [_table((), rows)]
    if node.inputs:
        links = [(name, f'<a href="#{_anchor(parent)}">{escape(" ".join(parent))}</a>') for name, parent in node.inputs.items()]
        parts.append("<h3>Made from</h3>" + _table((), links, raw=True))
    if node.sources:
        parts.append("<h3>Sources</h3>" + _sources(node.sources))
    if node.checks:
        parts.append("<h3>Checks</h3>" + _checks(node.checks))
    if recorded:
        for name, value in (("Config", recorded.recipe.get("config")), ("Figures", recorded.metrics)):
            parts.append(f"<details><summary>{name}</summary><pre>{escape(json.dumps(value, ensure_ascii=False, indent=2))}</pre></details>")
    state = "" if node.state == "present" else f' <span class="{node.state}">{escape(node.why)}</span>'
    head = f"<summary><b>{escape(node.link)}</b> <code>{escape(node.fingerprint)}</code>{state}</summary>"
    return f'<details id="{_anchor(node.name)}">{head}{"".join(parts)}</details>'


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _sources(sources: Iterable[Source]) -> str:
    rows = [(one.name, one.license, one.place, one.hash or "none", f"{one.documents:,}") for one in sources]
    return _table(("source", "licence", "from", "hash", "documents"), rows)


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    words = {(True, True): "passed", (True, False): "passed", (False, True): "failed", (False, False): "warned"}
    rows = [(check["check"], words[check["passed"], check["blocking"]], check["description"]) for check in checks]
    return _table(("check", "", "what was found"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], raw: bool = False) -> str:
    cells = (f"<tr>{''.join(f'<td>{cell if raw else escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{'<tr>' + ''.join(f'<th>{name}</th>' for name in head) + '</tr>' if head else ''}{''.join(cells)}</table>"


def _anchor(name: Name) -> str:
    return "-".join(name)


def _id(name: Name) -> str:
    return " ".join(name)


def _clip(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[: CLIPPED - 1]}…"
