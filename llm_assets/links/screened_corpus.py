"""The link screened_corpus: texts in one spelling, personal data masked, what is no text dropped with a reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus import pii
from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.cleaning import Cleaned, clean_texts
from llm_assets.corpus.codepoints import flatten, hash_texts, letters
from llm_assets.corpus.documents import document_schema, reject_schema, rejects, table_writer
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.corpus.own_rules import Listed, OwnRule, reason_for
from llm_assets.corpus.screening import RULES, LanguageRules, Texts, first_rule
from llm_assets.corpus.workers import cores, in_workers
from llm_assets.links import pages
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

PARALLEL_FROM = 64 << 20  # bytes of the raw corpus; below, starting processes takes longer than the work they share
SAMPLES = 20  # documents of each rule on the page
SHOWN = 80  # characters of a text on the page
DROP_LIST, KEEP_LIST = "drop_list", "keep_list"


class ScreenedCorpusConfig(Section):
    """What counts as a text worth learning from, in each language and kind of text."""

    languages: dict[str, LanguageRules] = Field(
        default={"zh": LanguageRules(scripts=["Han"]), "en": LanguageRules(scripts=["Latin"], minimum_characters=20)},
        min_length=1,
        description="thresholds by ISO 639-1 code; `zh/news` are those of Chinese documents whose source's metadata say {kind: news}",
    )
    default_language: str = Field("zh", description="for documents whose source states no language")
    own_rules: list[OwnRule] = Field(default_factory=list, description="functions of yours, asked after the rules")
    keep: list[Listed] = Field(default_factory=list, description="documents kept whatever the rules say")
    drop: list[Listed] = Field(default_factory=list, description="documents dropped whatever the rules say")
    minimum_kept: float = Field(0.5, ge=0, le=1, description="the check fails when a smaller share of the documents is kept")


def observe(config: ScreenedCorpusConfig) -> dict[str, Any]:
    """The source hash of each own rule: an edit of the function is another recipe."""
    return {rule.name: rule.source_hash() for rule in config.own_rules}


def screened_corpus(bench: Bench, config: ScreenedCorpusConfig, raw_corpus: Artifact) -> Made:
    """Brings every text into one spelling, masks personal data and drops what is no text, each with its reason.

    Repair of UTF-8 that was read as something else; normalising: Unicode NFKC, HTML, invisible characters, white space.
    Masking: e-mail addresses, phone numbers, Chinese identity numbers, bank cards and IP addresses become fixed tokens.
    Rules with thresholds a language and kind of text drop fragments, foreign text, symbol soup, pasted repetition and pieces
    of a page's frame; own rules and lists come on top. `rejects.parquet` names rule and place of each dropped document,
    `masks.parquet` each masked stretch (never what stood there), `counters.json` the totals by source and rule.
    Shards of 10,000 documents are screened independently of each other, in several processes where the corpus is large.
    """
    frequent = _frequent(raw_corpus, config)
    large = raw_corpus.path("documents.parquet").stat().st_size >= PARALLEL_FROM
    screen = partial(screen_shard, config=config, frequent=frequent)
    tally, total = _Tally(), raw_corpus.rows("documents.parquet")
    with (
        table_writer(bench.directory / "documents.parquet", document_schema()) as keep,
        table_writer(bench.directory / "rejects.parquet", reject_schema()) as reject,
        table_writer(bench.directory / "masks.parquet", mask_schema()) as mask,
    ):
        for shard in in_workers(screen, raw_corpus.batches("documents.parquet"), cores() if large else 1):
            keep(shard.kept)
            reject(shard.rejected)
            mask(shard.masks)
            tally.add(shard)
            bench.progress(tally.counts["read"], total, "documents")
    rules = [*RULES, *(rule.name for rule in config.own_rules), DROP_LIST]
    every = {rule: sum(counts[rule] for counts in tally.dropped.values()) for rule in rules}
    dropped = {rule: count for rule, count in every.items() if count or rule in RULES}
    counters = {
        "read": tally.counts["read"],
        "kept": tally.counts["kept"],
        "dropped": dropped,
        "masked": {rule: tally.masked[rule] for rule in pii.MASKS},
        "repaired": tally.counts["repaired"],
        "kept_by_list": tally.counts[KEEP_LIST],
    }
    by_source = {source: dict(sorted(counts.items())) for source, counts in sorted(tally.dropped.items())}
    write_json(bench.directory / "counters.json", {**counters, "sources": by_source})
    bars(bench.directory, "dropped", dropped, "Documents dropped by each rule", "documents")
    histogram(bench.directory, "lengths", tally.lengths(), "Length of the kept documents", "characters")
    pages.table(
        bench.directory,
        "rules",
        "What screening did, rule by rule",
        ("rule", "document", "source", "before (masked)", "after"),
        tally.sampled(),
        f"Up to {SAMPLES} documents a rule, those with the smallest doc_id; texts are cut to {SHOWN} characters.",
    )
    return Made(metrics={**counters, "normaliser_version": NORMALISER_VERSION})


@dataclass
class Shard:
    """What became of one batch of documents."""

    kept: pa.Table
    rejected: pa.Table
    masks: pa.Table
    counts: Counter[str]
    dropped: dict[str, Counter[str]]  # by source and rule
    masked: Counter[str]
    samples: list[tuple[str, str, str, str, str]]  # rule, doc_id, source, before, after


def screen_shard(batch: pa.RecordBatch, config: ScreenedCorpusConfig, frequent: Mapping[str, NDArray[np.uint64]]) -> Shard:
    """Clean and judge one batch; depends on nothing but its arguments."""
    import pyarrow as pa

    raw = pa.Table.from_batches([batch])
    before, doc_ids, sources = raw["text"].to_pylist(), raw["doc_id"].to_pylist(), raw["source"].to_pylist()
    cleaned = clean_texts(before)
    documents = raw.set_column(raw.schema.get_field_index("text"), "text", pa.array(cleaned.texts, pa.string()))
    verdicts, reasons, listed = _overruled(_judge(documents, cleaned.texts, config, frequent), doc_ids, cleaned.texts, config)
    fallen = [index for index, rule in enumerate(verdicts) if rule]
    dropped: dict[str, Counter[str]] = {}
    for index in fallen:
        dropped.setdefault(sources[index], Counter())[str(verdicts[index])] += 1
    rejected = documents.filter(pa.array([rule is not None for rule in verdicts], pa.bool_()))
    evidence = [reasons.get(index, cleaned.texts[index]) for index in fallen]
    happened = _happened(verdicts, cleaned)
    return Shard(
        kept=documents.filter(pa.array([rule is None for rule in verdicts], pa.bool_())),
        rejected=rejects(rejected, [str(verdicts[index]) for index in fallen], evidence),
        masks=_masks(doc_ids, cleaned.masks),
        counts=Counter({"read": len(raw), "kept": len(raw) - len(fallen), "repaired": len(cleaned.repaired), KEEP_LIST: listed}),
        dropped=dropped,
        masked=Counter(span.rule for found in cleaned.masks.values() for span in found),
        samples=[
            (rule, doc_ids[index], sources[index], _shown(before[index]), "dropped" if verdicts[index] else _shown(cleaned.texts[index]))
            for rule, indices in happened.items()
            for index in sorted(indices, key=doc_ids.__getitem__)[:SAMPLES]
        ],
    )


def _judge(documents: pa.Table, texts: list[str], config: ScreenedCorpusConfig, frequent: Mapping[str, NDArray[np.uint64]]) -> list[str | None]:
    """The rule that drops each document, or None; documents under the same thresholds are judged together."""
    import pyarrow as pa

    verdicts: list[str | None] = [None] * len(texts)
    places: dict[str, list[int]] = {}
    for index, key in enumerate(_keys(documents, config)):
        places.setdefault(key, []).append(index)
    for key, indices in places.items():
        chosen = Texts([texts[index] for index in indices], frequent.get(key))
        for index, rule in zip(indices, first_rule(chosen, config.languages[key]), strict=True):
            verdicts[index] = rule
    for own in config.own_rules:
        standing = [index for index, rule in enumerate(verdicts) if rule is None]
        for index, is_dropped in zip(standing, own.dropped(pa.array([texts[index] for index in standing], pa.string())), strict=True):
            verdicts[index] = own.name if is_dropped else None
    return verdicts


def _keys(documents: pa.Table | pa.RecordBatch, config: ScreenedCorpusConfig) -> Iterator[str]:
    """Under which entry of ``languages`` each document falls. Raises ``SourceError`` for a language without rules."""
    known: dict[tuple[str | None, str], str] = {}
    for language, metadata in zip(documents["language"].to_pylist(), documents["metadata"].to_pylist(), strict=True):
        if (language, metadata) not in known:
            code, kind = language or config.default_language, json.loads(metadata).get("kind")
            if code not in config.languages:
                raise SourceError(f"documents are in {code}, but screened_corpus has no rules for it; add languages.{code} to that section")
            known[language, metadata] = f"{code}/{kind}" if f"{code}/{kind}" in config.languages else code
        yield known[language, metadata]


def _overruled(
    verdicts: list[str | None], doc_ids: Sequence[str], texts: Sequence[str], config: ScreenedCorpusConfig
) -> tuple[list[str | None], dict[int, str], int]:
    """The verdicts after the lists, the reasons of what they dropped by index, and how many they kept from a rule."""
    reasons: dict[int, str] = {}
    saved = 0
    if config.keep or config.drop:
        for index, (doc_id, text) in enumerate(zip(doc_ids, texts, strict=True)):
            if verdicts[index] and reason_for(config.keep, doc_id, text):
                verdicts[index], saved = None, saved + 1
            elif reason := reason_for(config.drop, doc_id, text):
                verdicts[index], reasons[index] = DROP_LIST, reason
    return verdicts, reasons, saved


def _happened(verdicts: Sequence[str | None], cleaned: Cleaned) -> dict[str, list[int]]:
    """Which documents each rule dropped, and which were masked or repaired."""
    happened: dict[str, list[int]] = {"repaired": cleaned.repaired}
    for index, found in cleaned.masks.items():
        happened.setdefault(f"masked {found[0].rule}", []).append(index)
    for index, rule in enumerate(verdicts):
        if rule:
            happened.setdefault(rule, []).append(index)
    return happened


def _shown(text: str) -> str:
    """The beginning of a text, masked; four times as much is masked as is shown, so that no number is cut in two."""
    return pii.mask(text[: 4 * SHOWN])[0][:SHOWN]


def _frequent(raw: Artifact, config: ScreenedCorpusConfig) -> dict[str, NDArray[np.uint64]]:
    """By entry of ``languages``, the hashes of the texts that stand more often in the corpus than it allows, punctuation aside."""
    import numpy as np

    found: dict[str, list[NDArray[np.uint64]]] = {}
    for batch in raw.batches("documents.parquet", ["text", "language", "metadata"]):
        hashes, keys = hash_texts(letters(batch["text"].to_pylist())), np.array(list(_keys(batch, config)))
        for key in config.languages:
            found.setdefault(key, []).append(hashes[keys == key])
    often = {}
    for key, parts in found.items():
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        often[key] = values[counts > config.languages[key].maximum_occurrences]
    return often


@dataclass
class _Tally:
    """Counts over the shards; 4 bytes a document stay."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    masked: Counter[str] = field(default_factory=Counter)
    _samples: dict[str, list[tuple[str, str, str, str, str]]] = field(default_factory=dict)
    _lengths: list[NDArray[np.uint32]] = field(default_factory=list)

    def add(self, shard: Shard) -> None:
        import numpy as np
        import pyarrow.compute as pc

        self.counts += shard.counts
        self.masked += shard.masked
        for source, counts in shard.dropped.items():
            self.dropped.setdefault(source, Counter()).update(counts)
        for sample in shard.samples:
            self._samples.setdefault(sample[0], []).append(sample)
        self._samples = {rule: sorted(set(samples))[:SAMPLES] for rule, samples in self._samples.items()}
        self._lengths.append(pc.utf8_length(shard.kept["text"]).to_numpy().astype(np.uint32))

    def lengths(self) -> NDArray[np.uint32]:
        import numpy as np

        return np.concatenate([np.empty(0, np.uint32), *self._lengths])

    def sampled(self) -> list[tuple[str, ...]]:
        return [sample for rule in sorted(self._samples) for sample in self._samples[rule]]


def mask_schema() -> pa.Schema:
    """The Arrow schema of ``masks.parquet``; ``start`` and ``end`` are character positions in the normalised text."""
    import pyarrow as pa

    return pa.schema([("doc_id", pa.string()), ("rule", pa.string()), ("start", pa.int64()), ("end", pa.int64())])


def _masks(doc_ids: Sequence[str], spans: Mapping[int, list[pii.Span]]) -> pa.Table:
    import pyarrow as pa

    rows = [{"doc_id": doc_ids[index], **span._asdict()} for index, found in sorted(spans.items()) for span in found]
    return pa.Table.from_pylist(rows, mask_schema())


def _enough_kept(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    read, kept = inputs["raw_corpus"].rows("documents.parquet"), artifact.rows("documents.parquet")
    floor = artifact.manifest.recipe["config"]["minimum_kept"]
    share = kept / read if read else 0.0
    return Verdict(
        check="enough_kept",
        passed=kept > 0 and share >= floor,
        description=f"{kept} of {read} documents kept ({share:.1%}; at least {floor:.0%} expected): see `dropped` for the rule that took most",
        values={"kept": kept, "read": read},
    )


def _nothing_lost(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    before = _occurrences(inputs["raw_corpus"], "documents.parquet")
    after = np.concatenate([_occurrences(artifact, "documents.parquet"), _occurrences(artifact, "rejects.parquet")])
    _, place = np.unique(np.concatenate([before, after]), return_inverse=True)
    balance = np.bincount(place, weights=np.repeat([1.0, -1.0], [len(before), len(after)]))
    lost, added = int(balance[balance > 0].sum()), int(-balance[balance < 0].sum())
    return Verdict(
        check="nothing_lost",
        passed=not lost and not added,
        description=f"{len(before)} documents came in: {lost} are neither kept nor rejected, {added} stand twice or came from nowhere",
    )


def _occurrences(artifact: Artifact, name: str) -> NDArray[np.uint64]:
    """A hash of each document and the place where it stands: its source, member and line."""
    import numpy as np

    found = [np.empty(0, np.uint64)]
    for batch in artifact.batches(name, ["doc_id", "source", "member", "line"]):
        found.append(hash_texts(flatten([repr(tuple(row.values())) for row in batch.to_pylist()])))
    return np.concatenate(found)


def _no_personal_data(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    found: list[str] = []
    for batch in artifact.batches("documents.parquet", ["doc_id", "text"]):
        found += [batch["doc_id"][index].as_py() for index in pii.mask_all(batch["text"].to_pylist())[1]]
    shown = sum(len(pii.mask_all(batch["evidence"].to_pylist())[1]) for batch in artifact.batches("rejects.parquet", ["evidence"]))
    return Verdict(
        check="no_personal_data",
        passed=not found and not shown,
        description=f"{len(found)} of {artifact.rows('documents.parquet')} kept texts and {shown} pieces of evidence still hold personal data",
        values={"doc_ids": found[:10]},
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
    observe=observe,
    libraries=("ftfy", "numpy", "pyarrow"),
)
