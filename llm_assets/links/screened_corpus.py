"""The link screened_corpus: texts in one spelling, personal data masked, what is no text dropped with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus import pii
from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.documents import rejects
from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.corpus.screening import RULES, LanguageRules, first_rule
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.progress import Progress
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 5_000  # documents between two reports of progress, about a third of a second


class ScreenedCorpusConfig(Section):
    """What counts as a text worth learning from, in each language."""

    languages: dict[str, LanguageRules] = Field(
        default={"zh": LanguageRules(scripts=["Han"]), "en": LanguageRules(scripts=["Latin"], minimum_characters=20)},
        min_length=1,
        description="thresholds by ISO 639-1 code",
    )
    default_language: str = Field("zh", description="for documents whose source states no language")
    minimum_kept: float = Field(0.5, ge=0, le=1, description="the check fails when a smaller share of the documents is kept")


def screened_corpus(bench: Bench, config: ScreenedCorpusConfig, raw_corpus: Artifact) -> Made:
    """Brings every text into one spelling, masks personal data and drops what is no text, each with its reason.

    Normalising: Unicode NFKC, HTML, invisible characters, white space. Masking: e-mail addresses, phone numbers, Chinese
    identity numbers, bank cards and IP addresses become fixed tokens. Rules with thresholds a language drop fragments,
    foreign text, symbol soup, pasted repetition and pieces of a page's frame. `rejects.parquet` names rule and place of
    each dropped document, `masks.parquet` each masked stretch (never what stood there), `counters.json` the totals.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = raw_corpus.table("documents.parquet")
    texts, spans = clean_texts(raw["text"].to_pylist(), bench.progress)
    documents = raw.set_column(raw.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
    verdicts = _judge(documents, config)
    kept = documents.filter(pa.array([rule is None for rule in verdicts], pa.bool_()))
    dropped = documents.filter(pa.array([rule is not None for rule in verdicts], pa.bool_()))
    counts = Counter(rule for rule in verdicts if rule)
    rules = {rule: counts[rule] for rule in RULES}
    masked = Counter(span.rule for found in spans.values() for span in found)
    counters = {"read": len(documents), "kept": len(kept), "dropped": rules, "masked": {rule: masked[rule] for rule in pii.MASKS}}

    pq.write_table(kept, bench.directory / "documents.parquet")
    pq.write_table(rejects(dropped, [rule for rule in verdicts if rule], dropped["text"].to_pylist()), bench.directory / "rejects.parquet")
    pq.write_table(_masks(documents["doc_id"].to_pylist(), spans), bench.directory / "masks.parquet")
    write_json(bench.directory / "counters.json", counters)
    bars(bench.directory, "dropped", rules, "Documents dropped by each rule", "documents")
    histogram(bench.directory, "lengths", [len(text) for text in kept["text"].to_pylist()], "Length of the kept documents", "characters")
    return Made(metrics={**counters, "normaliser_version": NORMALISER_VERSION})


def clean_texts(texts: list[str], progress: Progress) -> tuple[list[str], dict[int, list[pii.Span]]]:
    """The texts normalised and masked, and the masked stretches by index; evaluation_sets uses the same function."""
    cleaned: list[str] = []
    spans: dict[int, list[pii.Span]] = {}
    for start in range(0, len(texts), BATCH):
        masked, found = pii.mask_all([normalise(text) for text in texts[start : start + BATCH]])
        cleaned += masked
        spans |= {start + index: value for index, value in found.items()}
        progress(len(cleaned), len(texts), "documents")
    return cleaned, spans


def _judge(documents: pa.Table, config: ScreenedCorpusConfig) -> list[str | None]:
    """The rule that drops each document, or None; each language's documents are judged together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    languages = pc.fill_null(documents["language"], config.default_language)
    verdicts: list[str | None] = [None] * len(documents)
    for language in pc.unique(languages).to_pylist():
        if language not in config.languages:
            raise SourceError(f"documents are in {language}, but screened_corpus has no rules for it; add languages.{language} to that section")
        places = pc.indices_nonzero(pc.equal(languages, language))
        texts = documents["text"].take(places).combine_chunks()
        for place, rule in zip(places.to_pylist(), first_rule(pa.array(texts), config.languages[language]), strict=True):
            verdicts[place] = rule
    return verdicts


def _masks(doc_ids: list[str], spans: Mapping[int, list[pii.Span]]) -> pa.Table:
    import pyarrow as pa

    rows = [{"doc_id": doc_ids[index], **span._asdict()} for index, found in sorted(spans.items()) for span in found]
    return pa.Table.from_pylist(rows, pa.schema([("doc_id", pa.string()), ("rule", pa.string()), ("start", pa.int64()), ("end", pa.int64())]))


def _enough_kept(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    read, kept = len(inputs["raw_corpus"].table("documents.parquet", ["doc_id"])), len(artifact.table("documents.parquet", ["doc_id"]))
    floor = artifact.manifest.recipe["config"]["minimum_kept"]
    share = kept / read if read else 0.0
    return Verdict(
        check="enough_kept",
        passed=kept > 0 and share >= floor,
        description=f"{kept} of {read} documents kept ({share:.1%}; at least {floor:.0%} expected): see `dropped` for the rule that took most",
        values={"kept": kept, "read": read},
    )


def _nothing_lost(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    before = _occurrences(inputs["raw_corpus"], "documents.parquet")
    after = _occurrences(artifact, "documents.parquet") + _occurrences(artifact, "rejects.parquet")
    lost, added = (before - after).total(), (after - before).total()
    return Verdict(
        check="nothing_lost",
        passed=not lost and not added,
        description=f"{before.total()} documents came in: {lost} are neither kept nor rejected, {added} stand twice or came from nowhere",
    )


def _occurrences(artifact: Artifact, name: str) -> Counter[tuple[Any, ...]]:
    """How often each document stands at each place; the place is its source, member and line."""
    columns = ["doc_id", "source", "member", "line"]
    table = artifact.table(name, columns)
    return Counter(zip(*(table[column].to_pylist() for column in columns), strict=True))


def _no_personal_data(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    table = artifact.table("documents.parquet", ["doc_id", "text"])
    _, spans = pii.mask_all(table["text"].to_pylist())
    evidence = artifact.table("rejects.parquet", ["evidence"])["evidence"].to_pylist()
    shown = pii.mask_all(evidence)[1]
    return Verdict(
        check="no_personal_data",
        passed=not spans and not shown,
        description=f"{len(spans)} of {len(table)} kept texts and {len(shown)} pieces of evidence still hold personal data",
        values={"doc_ids": [table["doc_id"][index].as_py() for index in list(spans)[:10]]},
    )


LINK = Link(
    name="screened_corpus",
    version=1,
    make=screened_corpus,
    config=ScreenedCorpusConfig,
    inputs=("raw_corpus",),
    stage="corpus",
    role="data-engineering",
    kinds=("python", "parquet"),
    checks=(
        Check("enough_kept", "A sane share of the documents is kept", _enough_kept),
        Check("nothing_lost", "Every document read is either kept or rejected with a rule", _nothing_lost),
        Check("no_personal_data", "The patterns that mask personal data find nothing in what is kept or shown as evidence", _no_personal_data),
    ),
    libraries=("pyarrow",),
)
