"""The summary of training content, under the headings of the European Commission's template for providers of general-purpose models.

AI Act, article 53(1)(d); "Explanatory Notice and Template for the Public Summary of Training Content", published on 24 July 2025 and adopted as
C(2025) 8311 final. Headings and the names of their fields are the template's, word by word, as the summaries of Apertus (1 September 2025) and of
MAI-Image-2 (19 March 2026) repeat them; its fields for other modalities than text are left out. It is filled from the records of a release
alone; what they do not say is said to be unknown, for its provider to add: who that is, whom the data came from, what nobody measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llm_assets.audit.provenance import Lineage, Source
from llm_assets.corpus.web import PRODUCT
from llm_assets.store.manifest import Manifest

UNKNOWN = "unknown: the records do not say"
SIZES = ((10**9, "less than 1 billion tokens"), (10**13, "1 billion to 10 trillion tokens"))  # the template's ranges for text
# Under which heading a kind of source stands; text of any other kind is the operator's, and from whom they have it is not recorded.
PUBLIC, CRAWLED = ("pypi", "huggingface"), ("http",)

Manifests = Mapping[str, Manifest]


def training_content(lineage: Lineage) -> str:
    """The summary as Markdown, from the records of a release's lineage."""
    manifests = {node.link: node.manifest for node in lineage.nodes.values() if node.manifest}
    release = lineage.release
    parts = [
        "## Summary of training content\n",
        "Under the headings of the European Commission's template (AI Act, article 53(1)(d)), filled from the release's records.\n",
        _fields({"Version of the Summary": f"of {lineage.wanted}", "Last update": release.at[:10] if release else UNKNOWN}),
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


def _fields(values: Mapping[str, Any]) -> str:
    """Fields of the template with what is filled in, a line each."""
    return "\n".join([*(f"- {name}: {value}" for name, value in values.items()), ""])


def _identification(lineage: Lineage, manifests: Manifests) -> Iterator[str]:
    release, pretrained = lineage.release, manifests.get("pretrained_checkpoint")
    weights = pretrained.recipe["config"].get("from_pretrained") if pretrained else None
    yield "#### 1.1 Provider identification\n"
    yield _fields({"Provider name and contact details": UNKNOWN, "Authorised representative name and contact details": UNKNOWN})
    yield "#### 1.2 Model identification\n"
    yield _fields(
        {
            "Versioned model name(s)": release.release if release else lineage.wanted,
            "Model dependencies": weights or ("none: it was trained from random weights" if pretrained else UNKNOWN),
            "Date of placement of the model on the Union market": f"{UNKNOWN}; released here on {release.at[:10] if release else 'no day'}",
        }
    )


def _characteristics(manifests: Manifests) -> Iterator[str]:
    raw, clean, tokens, examples = (manifests.get(link) for link in ("raw_corpus", "clean_corpus", "tokens", "labelled_examples"))
    counts = (("documents", raw, "documents read"), ("characters", raw, "characters read"), ("kept", clean, "documents learned from"),
              ("tokens", tokens, "tokens"), ("examples", examples, "labelled examples"))  # fmt: skip
    counted = [f"{manifest.metrics[key]:,} {title}" for key, manifest, title in counts if manifest and key in manifest.metrics]
    yield "#### 1.3 Modalities, overall training data size and other characteristics\n"
    yield table(("Modality", "Training data size", "Types of content"), [("Text", _size(tokens), ", ".join(_domains(raw)) or UNKNOWN)])
    yield _fields(
        {
            "Latest date of data acquisition/collection for model training": raw.started[:10] if raw else UNKNOWN,
            "Description of the linguistic characteristics of the overall training data": ", ".join(languages(manifests)) or UNKNOWN,
            "Other relevant characteristics of the overall training data": ", ".join(counted) or UNKNOWN,
        }
    )


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
    public, crawled = ([one for one in lineage.sources if one.kind in kinds] for kinds in (PUBLIC, CRAWLED))
    other = [one for one in lineage.sources if one.kind not in (*PUBLIC, *CRAWLED)]
    raw = manifests.get("raw_corpus")
    yield "#### 2.1 Publicly available datasets\n"
    yield _fields({"Have you used publicly available datasets to train the model?": _answer(public)})
    yield from _listed(public)
    yield "#### 2.2 Private non-publicly available datasets obtained from third parties\n"
    from_whom = f"{UNKNOWN} from whom the operator has the text under 2.6" if other else UNKNOWN
    yield "##### 2.2.1 Datasets commercially licensed by rightsholders or their representatives\n"
    yield _fields({"Have you concluded transactional commercial licensing agreement(s) with rightsholder(s) or with their representatives?": UNKNOWN})
    yield "##### 2.2.2 Private datasets obtained from other third parties\n"
    yield _fields({"Have you obtained private datasets from third parties that are not licensed as described in Section 2.2.1?": from_whom})
    yield "#### 2.3 Data crawled and scraped from online sources\n"
    yield _fields({"Were crawlers used by the provider or on behalf of?": _answer(crawled)} | (_crawling(crawled, raw) if crawled else {}))
    yield from _listed(crawled)
    yield "#### 2.4 User data\n"
    yield _fields(
        {
            "Was data from user interactions with the AI model (e.g. user input and prompts) used to train the model?": _user_data(manifests),
            "Was data collected from user interactions with the provider's other services or products used to train the model?": UNKNOWN,
        }
    )
    yield "#### 2.5 Synthetic data\n"
    made = f"No, none by this chain; whether a source holds text that a model wrote: {UNKNOWN}"
    yield _fields({"Was synthetic AI-generated data created by the provider or on their behalf to train the model?": made})
    yield "#### 2.6 Other sources of data\n"
    yield _fields({"Have data sources other than those described in Sections 2.1 to 2.5 been used to train the model?": _answer(other)})
    yield from _listed(other)


def _answer(sources: list[Source]) -> str:
    return "Yes" if sources else "No"


def _listed(sources: list[Source]) -> Iterator[str]:
    if sources:
        rows = [(one.name, one.kind, one.license, one.place, f"`{one.hash}`" if one.hash else "none", f"{one.documents:,}") for one in sources]
        yield table(("source", "kind", "licence", "from", "hash", "documents"), rows)


def _crawling(sources: list[Source], raw: Manifest | None) -> dict[str, str]:
    """What the template asks of crawlers: there is one, and what it was sent to."""
    hosts = sorted({host for one in sources for place in one.place.split(", ") if (host := urlsplit(place).hostname)})
    return {
        "Crawler name(s)/identifier(s)": PRODUCT,
        "Purposes of the crawler(s)": "to collect text for language models",
        "General description of crawler behaviour": "it says its name, obeys robots.txt, waits between requests, and reads no page behind a password",
        "Period of data collection": f"until {raw.started[:10] if raw else UNKNOWN}; since when: {UNKNOWN}",
        "Type of modality covered": "Text",
        "Summary of the most relevant domain names crawled": ", ".join(hosts) or UNKNOWN,
    }


def _user_data(manifests: Manifests) -> str:
    """What users of the service labelled, or said of replies, and the model learned from; no other text of theirs is learned from."""
    examples, aligned = manifests.get("labelled_examples"), manifests.get("aligned_model")
    if examples is None:
        return UNKNOWN
    learned = examples.metrics.get("feedback", {}).get("examples", 0)
    judged = aligned.metrics.get("feedback", {}).get("pairs", 0) if aligned else 0
    said = [f"{learned:,} examples"] * bool(learned) + [f"{judged:,} replies that they judged"] * bool(judged)
    return f"Yes, texts of users of the service with the labels or replies they gave, personal data masked: {', '.join(said)}" if said else "No"


def _processing(lineage: Lineage, manifests: Manifests) -> Iterator[str]:
    raw, screened, clean = (manifests.get(link) for link in ("raw_corpus", "screened_corpus", "clean_corpus"))
    passed_over = _counts(raw.metrics.get("passed_over_pages", {}) if raw else {})
    robots = f"pages of the web were read where their site's robots.txt allows it, and passed over: {passed_over}; "
    crawled = any(one.kind in CRAWLED for one in lineage.sources)
    dropped = screened.metrics.get("dropped", {}) if screened else {}
    toxic = f"{dropped['toxic']:,} documents were dropped as toxic by the screening" if "toxic" in dropped else UNKNOWN
    yield "#### 3.1 Respect of reservation of rights from text and data mining exception or limitation\n"
    yield _fields(
        {
            "Are you a Signatory to the Code of Practice for general-purpose AI models?": UNKNOWN,
            "Measures implemented before model training to respect reservations of rights": f"{robots if crawled else ''}licences admitted: "
            f"{_policy(raw)}; reservations expressed in other ways: {UNKNOWN}",
        }
    )
    yield "#### 3.2 Removal of illegal content\n"
    yield _fields({"General description of measures taken": f"{toxic}; no other kind of illegal content was looked for"})
    yield "#### 3.3 Other information (optional)\n"
    told = (
        ("Dropped by screening", screened, "dropped"),
        ("Personal data masked", screened, "masked"),
        ("Dropped as repeated or as evaluation text", clean, "dropped"),
    )
    yield _fields({title: _counts(manifest.metrics.get(key, {})) if manifest else UNKNOWN for title, manifest, key in told})


def _policy(raw: Manifest | None) -> str:
    if raw is None:
        return UNKNOWN
    policy = raw.recipe["config"].get("licenses") or {}
    allow, forbid = policy.get("allow"), policy.get("forbid")
    return ", ".join(allow) if allow else f"all but {', '.join(forbid)}" if forbid else "all, each stated with its source"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
