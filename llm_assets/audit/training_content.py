"""The summary of training content, under the headings of the European Commission's template for providers of general-purpose models.

AI Act, article 53(1)(d); template of the AI Office of 24 July 2025. It is filled from the records of a release alone; what they do not say is said to
be unknown, for its provider to add: who that is, whom the data came from, what nobody measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_assets.audit.provenance import Lineage, Source
from llm_assets.store.manifest import Manifest

UNKNOWN = "unknown: the records do not say"
SIZES = ((10**9, "less than 1 billion tokens"), (10**13, "1 billion to 10 trillion tokens"))  # the template's ranges for text
# Under which heading a kind of source stands; text of any other kind is the operator's, and from whom they have it is not recorded.
PUBLIC, CRAWLED = ("pypi", "huggingface"), ("http",)

Manifests = Mapping[str, Manifest]


def training_content(lineage: Lineage) -> str:
    """The summary as Markdown, from the records of a release's lineage."""
    manifests = {node.link: node.manifest for node in lineage.nodes.values() if node.manifest}
    parts = [
        "## Summary of training content\n",
        "Under the headings of the European Commission's template (AI Act, article 53(1)(d)), filled from the release's records.\n",
        "### 1. General information\n",
        *_identification(lineage, manifests),
        *_characteristics(manifests),
        "### 2. List of data sources\n",
        *_sources(lineage, manifests),
        "### 3. Data processing aspects\n",
        *_processing(lineage, manifests),
    ]
    return "\n".join(parts)


def languages(manifests: Manifests) -> list[str]:
    """The languages that the sources state, sorted."""
    raw = manifests.get("raw_corpus")
    return sorted({source["language"] for source in raw.recipe["config"]["sources"] if source.get("language")}) if raw else []


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; what would end a cell or a row is replaced."""
    heads = list(head)
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    lines += [f"| {' | '.join(str(cell).replace('|', '/').replace(chr(10), ' ') for cell in row)} |" for row in rows]
    return "\n".join([*lines, ""])


def _identification(lineage: Lineage, manifests: Manifests) -> Iterator[str]:
    release, pretrained = lineage.release, manifests.get("pretrained_checkpoint")
    weights = pretrained.recipe["config"].get("from_pretrained") if pretrained else None
    yield "#### 1.1 Provider identification\n"
    yield f"- Provider, contact and authorised representative: {UNKNOWN}.\n"
    yield "#### 1.2 Model identification\n"
    yield f"- Versioned model name: {release.release if release else lineage.wanted}."
    yield f"- Models it depends on: {weights or ('none: it was trained from random weights' if pretrained else UNKNOWN)}."
    yield f"- Date of placement on the Union market: {UNKNOWN}; released here on {release.at[:10] if release else 'no day'}.\n"


def _characteristics(manifests: Manifests) -> Iterator[str]:
    raw, clean, tokens, examples = (manifests.get(link) for link in ("raw_corpus", "clean_corpus", "tokens", "labelled_examples"))
    counts = (("documents", raw, "documents read"), ("characters", raw, "characters read"), ("kept", clean, "documents learned from"),
              ("tokens", tokens, "tokens"), ("examples", examples, "labelled examples"))  # fmt: skip
    counted = [(title, f"{manifest.metrics[key]:,}") for key, manifest, title in counts if manifest and key in manifest.metrics]
    yield "#### 1.3 Modalities, overall training data size and other characteristics\n"
    rows = [
        ("modality", "text"),
        ("training data size", _size(tokens)),
        *counted,
        ("types of content", ", ".join(_domains(raw)) or UNKNOWN),
        ("latest date of acquisition", raw.started[:10] if raw else UNKNOWN),
        ("languages", ", ".join(languages(manifests)) or UNKNOWN),
    ]
    yield table(("", ""), rows)


def _size(tokens: Manifest | None) -> str:
    if tokens is None or "tokens" not in tokens.metrics:
        return UNKNOWN
    return next((title for bound, title in SIZES if tokens.metrics["tokens"] < bound), "more than 10 trillion tokens")


def _domains(raw: Manifest | None) -> list[str]:
    """The domains that the sources state of their documents, such as hotels or news."""
    sources = raw.recipe["config"].get("sources", []) if raw else []
    named = {source.get("metadata", {}).get("domain") for source in sources}
    return sorted(filter(None, named | {part.get("domain") for source in sources for part in source.get("domains") or ()}))


def _sources(lineage: Lineage, manifests: Manifests) -> Iterator[str]:
    by_heading = {
        "2.1 Publicly available datasets": [one for one in lineage.sources if one.kind in PUBLIC],
        "2.3 Data crawled and scraped from online sources": [one for one in lineage.sources if one.kind in CRAWLED],
        "2.6 Other sources of data": [one for one in lineage.sources if one.kind not in (*PUBLIC, *CRAWLED)],
    }
    yield _heading("2.1 Publicly available datasets", by_heading)
    yield "#### 2.2 Private non-publicly available datasets obtained from third parties\n"
    yield f"- {UNKNOWN} from whom the operator has the text under 2.6.\n"
    yield _heading("2.3 Data crawled and scraped from online sources", by_heading)
    yield "#### 2.4 User data\n"
    yield f"- {_user_data(manifests.get('labelled_examples'))}\n"
    yield "#### 2.5 Synthetic data\n"
    yield f"- The chain generated none; whether a source holds text that a model wrote: {UNKNOWN}.\n"
    yield _heading("2.6 Other sources of data", by_heading)


def _heading(title: str, by_heading: Mapping[str, list[Source]]) -> str:
    rows = [(one.name, one.kind, one.license, one.place, f"`{one.hash}`" if one.hash else "none", f"{one.documents:,}") for one in by_heading[title]]
    return f"#### {title}\n\n" + (table(("source", "kind", "licence", "from", "hash", "documents"), rows) if rows else "- None.\n")


def _user_data(examples: Manifest | None) -> str:
    """What users of the service labelled and the model learned from; no other text of theirs is learned from."""
    if examples is None:
        return f"{UNKNOWN[0].upper()}{UNKNOWN[1:]}."
    learned = examples.metrics.get("feedback", {}).get("examples", 0)
    return f"Texts of users of the service, with the labels they gave, personal data masked: {learned:,} examples." if learned else "None."


def _processing(lineage: Lineage, manifests: Manifests) -> Iterator[str]:
    raw, screened, clean = (manifests.get(link) for link in ("raw_corpus", "screened_corpus", "clean_corpus"))
    yield "#### 3.1 Respect of reservation of rights from text and data mining exception or limitation\n"
    if any(one.kind in CRAWLED for one in lineage.sources):
        passed_over = _counts(raw.metrics.get("passed_over_pages", {}) if raw else {})
        yield f"- Pages of the web were read where their site's robots.txt allows it; passed over: {passed_over}."
    yield f"- Licences admitted: {_policy(raw)}. Reservations expressed in other ways: {UNKNOWN}.\n"
    yield "#### 3.2 Removal of illegal content\n"
    dropped = screened.metrics.get("dropped", {}) if screened else {}
    yield f"- Dropped as toxic by the screening: {dropped['toxic']:,} documents." if "toxic" in dropped else f"- {UNKNOWN}."
    yield "- No other kind of illegal content was looked for.\n"
    yield "#### 3.3 Other information\n"
    for title, manifest, key in (
        ("Dropped by screening", screened, "dropped"),
        ("Personal data masked", screened, "masked"),
        ("Dropped as repeated or as evaluation text", clean, "dropped"),
    ):
        yield f"- {title}: {_counts(manifest.metrics.get(key, {})) if manifest else UNKNOWN}."
    yield ""


def _policy(raw: Manifest | None) -> str:
    if raw is None:
        return UNKNOWN
    policy = raw.recipe["config"].get("licenses") or {}
    allow, forbid = policy.get("allow"), policy.get("forbid")
    return ", ".join(allow) if allow else f"all but {', '.join(forbid)}" if forbid else "all, each stated with its source"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
