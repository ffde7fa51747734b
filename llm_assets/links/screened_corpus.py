"""The link screened_corpus: texts in one spelling, personal data masked, what is no text dropped with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus import pii
from llm_assets.corpus.documents import EVIDENCE_LENGTH, SAMPLES, document_schema, hash_rows, reject_schema, table_writer
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.corpus.screening import RULES
from llm_assets.corpus.shards import DROP_LIST, KEEP_LIST, Screening, Shard, frequent_texts, mask_schema, screen_shard
from llm_assets.corpus.workers import cores, in_workers
from llm_assets.links import pages
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARALLEL_FROM = 64 << 20  # bytes of the raw corpus; a smaller one is screened before several processes have started


class ScreenedCorpusConfig(Section, Screening):
    """What counts as a text worth learning from, in each language and kind of text."""

    minimum_kept: float = Field(0.5, ge=0, le=1, description="the check fails when a smaller share of the documents is kept")


def observe(config: ScreenedCorpusConfig) -> dict[str, Any]:
    """The source hash of each own rule: an edit of the function is another recipe."""
    return {rule.name: rule.source_hash() for rule in config.own_rules}


def screened_corpus(bench: Bench, config: ScreenedCorpusConfig, raw_corpus: Artifact) -> Made:
    """Brings every text into one spelling, masks personal data and drops what is no text, each with its reason.

    Repair of UTF-8 that was read as something else; normalising: Unicode NFKC, HTML, invisible characters, white space.
    Masking: e-mail addresses, phone numbers, Chinese identity numbers, bank cards, IP addresses, postal addresses and personal
    names (Chinese ones as a recogniser finds them, English ones after a title) become fixed tokens.
    Rules with thresholds a language and kind of text drop fragments, foreign text, symbol soup, pasted repetition and pieces
    of a page's frame; own rules and lists come on top. `rejects.parquet` names rule and place of each dropped document,
    `masks.parquet` each masked stretch (never what stood there), `counters.json` the totals by source and rule.
    Shards of 10,000 documents are screened independently of each other, in several processes where the corpus is large.
    """
    frequent = frequent_texts(raw_corpus.batches("documents.parquet", ["text", "language", "metadata"]), config)
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
        f"Up to {SAMPLES} documents a rule, those with the smallest doc_id; texts are cut to {EVIDENCE_LENGTH} characters.",
    )
    return Made(metrics={**counters, "normaliser_version": NORMALISER_VERSION})


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
    """A hash of each document and the place where it stands."""
    import numpy as np

    place = ["doc_id", "source", "member", "line"]
    return np.concatenate([np.empty(0, np.uint64), *(hash_rows(batch, place) for batch in artifact.batches(name, place))])


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
    version=4,
    make=screened_corpus,
    config=ScreenedCorpusConfig,
    inputs=("raw_corpus",),
    stage="corpus",
    role="data_engineer",
    kinds=("python", "parquet"),
    checks=(
        Check("enough_kept", "A sane share of the documents is kept", _enough_kept),
        Check("nothing_lost", "Every document read is either kept or rejected with a rule", _nothing_lost),
        Check("no_personal_data", "What masks personal data finds nothing in what is kept or shown as evidence", _no_personal_data),
    ),
    observe=observe,
    libraries=("ftfy", "numpy", "pyarrow"),
)
