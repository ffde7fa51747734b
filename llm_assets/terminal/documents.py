"""What became of documents, as tables on the terminal and as the Markdown of docs/corpus.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from llm_assets.audit.documents import Corpus, Fate, dropped
from llm_assets.corpus.screening import RULES
from llm_assets.corpus.shards import DROP_LIST

MEANING = {
    "undecodable": "bytes that are no text in its file's encoding",
    "malformed": "no row of its file's format",
    "missing_text": "no text where the source says it stands",
    "line_too_long": "longer than the source's `maximum_line`",
    "unknown_label": "a label that is not among the source's `labels`",
    DROP_LIST: "dropped by name, with a reason",
    "evaluation": "is, or nearly is, a document of the evaluation sets",
    "evaluation_overlap": "an evaluation document stands inside it",
    "duplicate": "equals another document but for punctuation",
    "near_duplicate": "nearly equals another document",
}


def meaning(rule: str) -> str:
    """What a rule drops: a screening rule says it in its docstring."""
    if rule in RULES:
        return " ".join((RULES[rule].__doc__ or "").split()).replace("``", "`").rstrip(".")
    return MEANING.get(rule, "a rule of yours")


def dropped_table(chain: str, corpus: Corpus) -> Table:
    """One row a rule with the number of documents it dropped."""
    table = Table(title=f"Documents of {chain}", box=box.SIMPLE_HEAD, caption=_kept(corpus))
    for name, justify in (("link", "left"), ("rule", "left"), ("documents", "right"), ("meaning", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for (link, rule), counts in _by_rule(corpus).items():
        table.add_row(link, rule, f"{sum(counts.values()):,}", meaning(rule))
    return table


def rejected_table(rule: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a dropped document, with its place and masked evidence."""
    table = Table(title=f"{rule}: {meaning(rule)}", box=box.SIMPLE_HEAD, caption=f"{len(rows)} shown")
    for name in ("document", "where", "evidence"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row["doc_id"], _where(row["source"], row["member"], row["line"]), Text(row["evidence"]))
    return table


def fates_table(text: str, fates: Sequence[Fate]) -> Table:
    """One row an occurrence of a text, with what became of it."""
    table = Table(title=f"Documents that hold {text!r}", box=box.SIMPLE_HEAD, caption=f"{len(fates)} shown")
    for name in ("document", "where", "text (masked)", "what became of it"):
        table.add_column(name, overflow="fold")
    for fate in fates:
        end = "kept" if fate.rule is None else f"{fate.link}: {fate.rule} ({fate.evidence})"
        table.add_row(fate.doc_id, _where(fate.source, fate.member, fate.line), Text(fate.snippet), Text(end))
    return table


def corpus_markdown(chain: str, corpus: Corpus) -> str:
    """What happened to every document of a chain, rule by rule and source by source."""
    sources: Mapping[str, int] = corpus.raw_corpus.metrics["sources"]
    names = [name for name, count in sources.items() if count]
    screened, clean, sets = corpus.screened_corpus.metrics, corpus.clean_corpus.metrics, corpus.evaluation_sets.metrics
    lines = [
        f"# What happened to the documents of `{chain}`",
        "",
        f"Printed by `llm-assets docs {chain} --markdown`. Every row is counted from the artifacts; `llm-assets docs {chain} --rule RULE` shows the",
        "documents behind it, and the pages `rules` and `duplicates` of the assets show samples before and after.",
        "",
        _row("", *names, "all"),
        _row("---", *("---:" for _ in names), "---:"),
        _row("read", *(f"{sources[name]:,}" for name in names), f"{sum(sources.values()):,}"),
    ]
    for (link, rule), counts in _by_rule(corpus).items():
        lines.append(_row(f"{link}: {rule}", *(f"{counts[name]:,}" for name in names), f"{sum(counts.values()):,}"))
    kept: Mapping[str, int] = clean["sources"]
    lines += [_row("**kept**", *(f"**{kept.get(name, 0):,}**" for name in names), f"**{clean['kept']:,}**"), ""]
    lines += ["| rule | drops |", "| --- | --- |"]
    lines += [_row(rule, meaning(rule)) for rule in dict.fromkeys(rule for _, rule in _by_rule(corpus))]
    masked = ", ".join(f"{count:,} {kind}" for kind, count in screened["masked"].items() if count) or "none"
    lines += [
        "",
        f"Personal data masked: {masked}. Texts with repaired encoding: {screened['repaired']:,}.",
        f"Kept texts whose copies carried different labels, and which lost theirs: {clean['contradictory_labels']:,}.",
        f"The evaluation sets hold {sets['test']:,} test and {sets['validation']:,} validation documents.",
        "",
    ]
    return "\n".join(lines)


def _by_rule(corpus: Corpus) -> dict[tuple[str, str], dict[str, int]]:
    """Documents by source for every link and rule, links in their order, most dropped first."""
    order = [artifact.link for artifact in corpus.rejecting]
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in dropped(corpus):
        counts[row["link"], row["rule"]][row["source"]] += row["documents"]
    return dict(sorted(counts.items(), key=lambda item: (order.index(item[0][0]), -sum(item[1].values()))))


def _kept(corpus: Corpus) -> str:
    return f"{corpus.raw_corpus.metrics['documents']:,} read, {corpus.clean_corpus.metrics['kept']:,} kept"


def _where(source: str, member: str, line: int) -> str:
    return f"{source}: {member}:{line}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
