"""What changed between two releases, runs or artifacts: sources, rules, rows, config, code, figures, and answers on the same documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, Node, Source
from llm_assets.evaluation import predictions
from llm_assets.evaluation.quality import paired_bootstrap
from llm_assets.links.chain import LINKS
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe, flatten
from llm_assets.training.heads import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TABLES = {
    "raw_corpus": "documents.parquet",
    "evaluation_sets": "evaluation.parquet",
    "clean_corpus": "documents.parquet",
    "labelled_examples": "train.parquet",
}
SAMPLES = 5  # doc_ids of a table that are named
CHANGED = 20  # answers that are shown
# Figures of how the machine did, not of what was made: they differ from run to run.
CLOCK = ("seconds", "_ms", "per_second", "memory", "matmul", "cost.", "resumed")


@dataclass(frozen=True)
class LinkChange:
    """One link, and what differs in it; no changes and equal fingerprints: the same artifact."""

    link: str
    before: str | None  # fingerprints
    after: str | None
    changes: list[str]


@dataclass(frozen=True)
class RowChange:
    """Documents that came and went in one table."""

    link: str
    before: int  # distinct documents
    after: int
    added: int
    gone: int
    added_samples: list[str]
    gone_samples: list[str]


@dataclass(frozen=True)
class RuleChange:
    """Documents that one rule dropped."""

    link: str
    rule: str
    before: int
    after: int


@dataclass(frozen=True)
class Figure:
    """One figure on both sides, with its 95% interval where it has one."""

    name: str
    before: float | None
    after: float | None
    before_interval: list[float] | None = None
    after_interval: list[float] | None = None


@dataclass(frozen=True)
class Behaviour:
    """Answers on the test documents that both were asked."""

    documents: int
    changed: int
    mended: int  # wrong before, right after
    spoiled: int
    difference: float  # mean of after minus before: share right, or squared error taken negative
    interval: list[float]  # 95%, over documents
    samples: list[dict[str, str]]  # doc_id, label, before, after


@dataclass(frozen=True)
class Diff:
    """Everything that changed."""

    before: str
    after: str
    links: list[LinkChange]
    sources: list[str]
    rules: list[RuleChange]
    rows: list[RowChange]
    figures: list[Figure]
    behaviour: Behaviour | None
    notes: list[str]  # what could not be compared, and why

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        return asdict(self)


def diff(first: tuple[Index, Lineage], second: tuple[Index, Lineage]) -> Diff:
    """What is other in the second lineage than in the first."""
    (index, before), (other_index, after) = first, second
    notes: list[str] = []
    pairs = dict(_pairs(before, after))
    opened: dict[str, tuple[Artifact, Artifact]] = {}
    for link, (one, two) in pairs.items():
        if one is None or two is None:
            continue
        if gone := [node for node in (one, two) if node.state != "present"]:
            notes.append(f"{link}: {gone[0].fingerprint} is {gone[0].state}, so its rows and answers were not compared")
            continue
        opened[link] = index.store.open(*one.name), other_index.store.open(*two.name)
    rows = [change for link, file in TABLES.items() if link in opened and (change := _rows(link, file, *opened[link]))]
    behaviour = _behaviour(*opened["quantized_model"], _problem(pairs), notes) if "quantized_model" in opened else None
    return Diff(
        before.wanted,
        after.wanted,
        [_link_change(link, one, two) for link, (one, two) in pairs.items()],
        list(_sources(before.sources, after.sources)),
        list(_rules(pairs)),
        rows,
        _figures(before, after, pairs),
        behaviour,
        notes,
    )


def _pairs(before: Lineage, after: Lineage) -> Iterator[tuple[str, tuple[Node | None, Node | None]]]:
    first, second = ({node.link: node for node in lineage.nodes.values()} for lineage in (before, after))
    for link in LINKS:
        if link in first or link in second:
            yield link, (first.get(link), second.get(link))


def _link_change(link: str, one: Node | None, two: Node | None) -> LinkChange:
    changes: list[str] = []
    if one and two and one.fingerprint != two.fingerprint and one.manifest and two.manifest:
        old, new = one.manifest, two.manifest
        changes = Recipe(**new.recipe).differences(old.recipe)
        pairs = {
            "code": (old.code.get("hash"), new.code.get("hash")),
            "commit": (str(old.code.get("commit"))[:12], str(new.code.get("commit"))[:12]),
            "licences": (", ".join(old.licenses), ", ".join(new.licenses)),
            **{name: (old.libraries.get(name, "absent"), new.libraries.get(name, "absent")) for name in sorted({*old.libraries, *new.libraries})},
        }
        changes += [f"{name}: {was} -> {now}" for name, (was, now) in pairs.items() if was != now]
        if old.data_version == new.data_version:
            changes.append("the content is the same")
    return LinkChange(link, one.fingerprint if one else None, two.fingerprint if two else None, changes)


def _sources(before: list[Source], after: list[Source]) -> Iterator[str]:
    old, new = ({source.name: source for source in sources} for sources in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if name not in old:
            yield f"{name}: added ({new[name].license}; {new[name].documents:,} documents)"
        elif name not in new:
            yield f"{name}: gone ({old[name].license}; {old[name].documents:,} documents)"
        elif old[name] != new[name]:
            fields = ((key, getattr(old[name], key), getattr(new[name], key)) for key in ("kind", "license", "place", "hash", "documents"))
            yield f"{name}: " + "; ".join(f"{key} {was} -> {now}" for key, was, now in fields if was != now)


def _rules(pairs: Mapping[str, tuple[Node | None, Node | None]]) -> Iterator[RuleChange]:
    for link in ("screened_corpus", "clean_corpus"):
        old, new = (node.manifest.metrics.get("dropped", {}) if node and node.manifest else {} for node in pairs.get(link, (None, None)))
        yield from (
            RuleChange(link, rule, old.get(rule, 0), new.get(rule, 0)) for rule in dict.fromkeys([*old, *new]) if old.get(rule, 0) != new.get(rule, 0)
        )


def _rows(link: str, file: str, one: Artifact, two: Artifact) -> RowChange | None:
    """Documents by doc_id, 20 bytes each; None for the same content."""
    import numpy as np

    if one.data_version == two.data_version:
        return None
    old, new = _doc_ids(one, file), _doc_ids(two, file)
    added, gone = np.setdiff1d(new, old, assume_unique=True), np.setdiff1d(old, new, assume_unique=True)
    samples = ([doc.decode() for doc in some[:SAMPLES].tolist()] for some in (added, gone))
    return RowChange(link, len(old), len(new), len(added), len(gone), *samples)


def _doc_ids(artifact: Artifact, file: str) -> NDArray[np.bytes_]:
    import numpy as np

    pieces = (np.array(batch["doc_id"].to_pylist(), "S20") for batch in artifact.batches(file, ["doc_id"]))
    return np.unique(np.concatenate([np.empty(0, "S20"), *pieces]))


def _figures(before: Lineage, after: Lineage, pairs: Mapping[str, tuple[Node | None, Node | None]]) -> list[Figure]:
    """What differs among a release's figures, where both are releases, and among those of trained links."""
    found = []
    if before.release and after.release:
        found += _compared("", before.release.record.get("metrics") or {}, after.release.record.get("metrics") or {})
    for link, (one, two) in pairs.items():
        if LINKS[link].trained and one and two and one.manifest and two.manifest:
            found += _compared(f"{link}.", one.manifest.metrics, two.manifest.metrics)
    return found


def _compared(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Figure]:
    first, second = numbers(old), numbers(new)
    return [
        Figure(f"{prefix}{name}", first.get(name), second.get(name), old.get(f"{name}_interval"), new.get(f"{name}_interval"))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The figures of what was made, by dotted name; those of how the machine did are left out, and ends of intervals."""
    return {
        key: value
        for key, value in flatten(dict(values)).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not any(word in key for word in (*CLOCK, "interval"))
    }


def _problem(pairs: Mapping[str, tuple[Node | None, Node | None]]) -> Problem:
    """What the models answer, as the finetuned one's recipe says."""
    node = pairs.get("finetuned_model", (None, None))[1]
    problem: Problem = node.manifest.recipe["config"].get("problem", "single_label") if node and node.manifest else "single_label"
    return problem


def _behaviour(one: Artifact, two: Artifact, problem: Problem, notes: list[str]) -> Behaviour | None:
    old, new = (predictions.read(model, QUANTIZED, "test") for model in (one, two))
    labels = {row["doc_id"]: row["label"] for row in new}
    was, now = predictions.predicted(old), predictions.predicted(new)
    merits = predictions.merit(old, problem), predictions.merit(new, problem)
    difference = paired_bootstrap(merits[1], merits[0])
    if difference is None:
        notes.append("the models were tested on different documents, so their answers were not compared")
        return None
    changed = sorted(doc for doc in was.keys() & now.keys() if was[doc] != now[doc])
    gains = [merits[1][doc] - merits[0][doc] for doc in changed]
    samples = [{"doc_id": doc, "label": labels[doc], "before": was[doc], "after": now[doc]} for doc in changed[:CHANGED]]
    return Behaviour(
        difference.documents,
        len(changed),
        sum(gain > 0 for gain in gains),
        sum(gain < 0 for gain in gains),
        difference.mean,
        [difference.low, difference.high],
        samples,
    )
