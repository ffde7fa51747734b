"""The page and the picture of a look for drift: every feature beside its threshold, and what moved."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_assets.links import pages
from llm_assets.links.plots import bars
from llm_assets.operation import features
from llm_assets.operation.profile import LENGTH, PAIRS, Profile
from llm_assets.operation.traffic import Row

SHOWN = 20  # pairs that moved most
PAGE = "drift"


def write_page(directory: Path, chain: str, record: Mapping[str, Any], profile: Profile, window: Sequence[Row]) -> None:
    """Write ``pages/drift.html``, which needs nothing from outside, and ``plots/drift.png`` into an act's folder."""
    what = {feature.name: feature.what for feature in features.FEATURES}
    rows = [
        (name, what[name], f"{found['value']:.4f}", f"{found['threshold']:.4f}", "drifted" if name in record["drifted"] else "")
        for name, found in record["features"].items()
    ]
    texts = [row["masked"][:LENGTH] for row in window]
    body = [
        f"<h1>Drift of {html.escape(chain)}</h1><p>{html.escape(_summary(record, profile))}</p>",
        _table(("feature", "what is compared", "now", "threshold", ""), rows),
        f"<h2>{'How replies ended' if profile.layout.get('answer_lengths') else 'Labels answered'}</h2>" + _shares(_label_shares(profile, window)),
        "<h2>Languages</h2>" + _shares(_language_shares(profile, texts)),
        "<h2>Pairs of letters that moved most</h2>" + _shares(pair_shares(profile, texts)),
    ]
    pages.write(directory, PAGE, f"Drift of {chain}", "\n".join(body))
    ratios = {name: found["value"] / max(found["threshold"], 1e-9) for name, found in record["features"].items()}
    bars(directory, PAGE, ratios, "Distance from the training distribution", "thresholds; more than 1 is drift")


def pair_shares(profile: Profile, texts: Sequence[str]) -> list[tuple[str, float, float]]:
    """The pairs of letters whose share moved most, each with its share of the reference and now; 0 where it is none of the commonest."""
    before, now = profile.layout["pairs"], features.pair_shares(texts, PAIRS)
    moved = sorted(before.keys() | now.keys(), key=lambda pair: (-abs(now.get(pair, 0) - before.get(pair, 0)), pair))
    return [(pair, before.get(pair, 0), now.get(pair, 0)) for pair in moved[:SHOWN]]


def _summary(record: Mapping[str, Any], profile: Profile) -> str:
    said = [
        f"{record['texts']} texts answered by {record['release']} from {record['from'][:19]} to {record['to'][:19]} UTC, "
        f"against {profile.texts} training texts and {profile.answers} validation answers: {record['reason']}."
    ]
    if record["estimated_accuracy"] is not None:
        said.append(f"Accuracy, estimated from the probabilities: {record['estimated_accuracy']:.1%}.")
    if record["feedback"]:
        said.append(f"Users voted on {record['feedback']['answers']} of the answers and called {record['feedback']['accuracy']:.1%} right.")
    return " ".join(said)


def _label_shares(profile: Profile, window: Sequence[Row]) -> list[tuple[str, float, float]]:
    if profile.problem == "regression":
        return []
    now = features.answers([row["label"] for row in window], profile.problem, profile.layout).sum(axis=0)
    return _both((*profile.layout["labels"], "other"), profile.sums["prediction"], now)


def _language_shares(profile: Profile, texts: Sequence[str]) -> list[tuple[str, float, float]]:
    now = features.named([[name] for name in features.languages(texts)], profile.layout["languages"]).sum(axis=0)
    return _both((*profile.layout["languages"], "other"), profile.sums["language"], now)


def _both(names: Sequence[str], before: Sequence[float], now: Any) -> list[tuple[str, float, float]]:
    return [(name, one / max(sum(before), 1), float(other / max(now.sum(), 1))) for name, one, other in zip(names, before, now, strict=True)]


def _shares(rows: Iterable[tuple[str, float, float]]) -> str:
    return _table(("", "training", "now"), [(name, f"{before:.2%}", f"{now:.2%}") for name, before, now in rows if before or now])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
