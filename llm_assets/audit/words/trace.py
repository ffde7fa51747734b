"""Where a document went, as a tree."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

from llm_assets.audit.documents import Fate
from llm_assets.audit.places import DOC_ID
from llm_assets.audit.trace import Cleaning, Trace
from llm_assets.audit.words.reply import Reply

SHORT = 12  # digits of a fingerprint that are shown
LISTED = 10  # near-duplicates that are shown
STYLES = {"kept": "green", "dropped": "yellow", "evaluation": "cyan"}


def traced(found: Sequence[Trace]) -> Reply:
    """The traces of one document, or of those that hold a text."""
    fates = [fate for one in found for cleaning in one.cleanings for fate in cleaning.fates]
    return Reply(
        "trace",
        found[0].doc_id,
        [trace_tree(one) for one in found],
        {
            "documents": len({one.doc_id for one in found}),
            "occurrences": len(fates),
            "dropped": sum(fate.state == "dropped" for fate in fates),
            "examples": sum(len(one.examples) for one in found),
            "models": len({learner.fingerprint for one in found for learner in one.learners}),
            "releases": len({served.release for one in found for served in one.releases}),
        },
        unquoted=[trace_tree(one, quoting=False) for one in found],
    )


def trace_tree(found: Trace, quoting: bool = True) -> Tree:
    """Its occurrences with their fates, then the blocks, examples, models and releases that it went into.

    ``quoting`` shows the beginning of the text and a rule's evidence, both masked.
    """
    tree = Tree(Text(f"document {found.doc_id}", style="bold"))
    for cleaning in found.cleanings:
        _add_cleaning(tree, cleaning, quoting)
    for block in found.blocks:
        span = f"block {block.first}" if block.first == block.last else f"blocks {block.first} to {block.last}"
        tree.add(Text(f"tokens {block.tokens[:SHORT]}: {span} ({block.part}), {block.length} tokens from {block.offset}"))
    for example in found.examples:
        doubt = f", {example.suggested} suspected" if example.suggested else ""
        tree.add(Text(f"labelled_examples {example.labelled_examples[:SHORT]}: {example.label}{doubt}"))
    learners = tree.add("models that learned from it" if found.learners else Text("no model learned from it", style="green"))
    for learner in found.learners:
        state = "" if learner.state == "present" else f" ({learner.state})"
        learners.add(Text(f"{learner.link} {learner.fingerprint[:SHORT]}{state}: as {' and as '.join(learner.through)}"))
    releases = tree.add("releases that learned from it" if found.releases else Text("no release learned from it", style="green"))
    for served in found.releases:
        releases.add(Text(f"{served.release} ({served.standing}), {served.at[:10]}"))
    for gone in found.unsearched:
        tree.add(Text(f"cannot be looked into: {gone}", style="dim"))
    return tree


def _add_cleaning(tree: Tree, cleaning: Cleaning, quoting: bool) -> None:
    cleaned = f", clean_corpus {cleaning.clean_corpus[:SHORT]}" if cleaning.clean_corpus else "; nothing was cleaned from it"
    branch = tree.add(Text(f"raw_corpus {cleaning.raw_corpus[:SHORT]}{cleaned}"))
    for fate in cleaning.fates:
        branch.add(_fate(fate, quoting))
    for repeat in cleaning.repeats[:LISTED]:
        branch.add(Text(f"{repeat['rule']}: {repeat['doc_id']} ({repeat['relation']})"))
    if (more := len(cleaning.repeats) - LISTED) > 0:
        branch.add(f"and {more} more")
    if cleaning.evaluation:
        branch.add(Text(f"evaluation_sets: {cleaning.evaluation['split']}, cluster {cleaning.evaluation['cluster']}"))


def _fate(fate: Fate, quoting: bool) -> Text:
    text = Text(f"{fate.source} {fate.member}:{fate.line} ")
    text.append("kept" if fate.rule is None else f"{fate.state} by {fate.link}: {fate.rule}", style=STYLES[fate.state])
    if fate.evidence and (quoting or DOC_ID.fullmatch(fate.evidence)):  # what a duplicate repeats is no text
        text.append(f" (evidence: {fate.evidence})")
    return text.append(f" {fate.snippet}", style="dim") if quoting else text
