"""One shard of the corpus screened: every text cleaned, judged by the rules, then by own rules and lists; depends on nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from llm_assets.corpus import pii
from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.cleaning import Cleaned, clean_texts
from llm_assets.corpus.codepoints import hash_texts, letters
from llm_assets.corpus.documents import SAMPLES, rejects
from llm_assets.corpus.own_rules import Listed, OwnRule, reason_for
from llm_assets.corpus.screening import LanguageRules, Texts, first_rule
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

DROP_LIST, KEEP_LIST = "drop_list", "keep_list"


class Screening(Strict):
    """The rules in force: thresholds by language and kind of text, and what the user adds."""

    languages: dict[str, LanguageRules] = Field(
        default={"zh": LanguageRules(scripts=["Han"]), "en": LanguageRules(scripts=["Latin"], minimum_characters=20)},
        min_length=1,
        description="thresholds by ISO 639-1 code; `zh/news` are those of Chinese documents whose source's metadata say {kind: news}",
    )
    default_language: str = Field("zh", description="for documents whose source states no language")
    own_rules: list[OwnRule] = Field(default_factory=list, description="functions of yours, asked after the rules")
    keep: list[Listed] = Field(default_factory=list, description="documents kept whatever the rules say")
    drop: list[Listed] = Field(default_factory=list, description="documents dropped whatever the rules say")


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


def screen_shard(batch: pa.RecordBatch, config: Screening, frequent: Mapping[str, NDArray[np.uint64]]) -> Shard:
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
    evidence = pii.excerpts([reasons.get(index, cleaned.texts[index]) for index in fallen])
    happened = _happened(verdicts, cleaned)
    return Shard(
        kept=documents.filter(pa.array([rule is None for rule in verdicts], pa.bool_())),
        rejected=rejects(rejected, [str(verdicts[index]) for index in fallen], evidence),
        masks=_masks(doc_ids, cleaned.masks),
        counts=Counter({"read": len(raw), "kept": len(raw) - len(fallen), "repaired": len(cleaned.repaired), KEEP_LIST: listed}),
        dropped=dropped,
        masked=Counter(span.rule for found in cleaned.masks.values() for span in found),
        samples=[
            (rule, doc_ids[index], sources[index], pii.excerpt(before[index]), "dropped" if verdicts[index] else pii.excerpt(cleaned.texts[index]))
            for rule, indices in happened.items()
            for index in sorted(indices, key=doc_ids.__getitem__)[:SAMPLES]
        ],
    )


def _judge(documents: pa.Table, texts: list[str], config: Screening, frequent: Mapping[str, NDArray[np.uint64]]) -> list[str | None]:
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


def _keys(documents: pa.Table | pa.RecordBatch, config: Screening) -> Iterator[str]:
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
    verdicts: list[str | None], doc_ids: Sequence[str], texts: Sequence[str], config: Screening
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


def frequent_texts(batches: Iterable[pa.RecordBatch], config: Screening) -> dict[str, NDArray[np.uint64]]:
    """By entry of ``languages``, the hashes of the texts that stand more often in the corpus than it allows, punctuation aside."""
    import numpy as np

    found: dict[str, list[NDArray[np.uint64]]] = {}
    for batch in batches:
        hashes, keys = hash_texts(letters(batch["text"].to_pylist())), np.array(list(_keys(batch, config)))
        for key in config.languages:
            found.setdefault(key, []).append(hashes[keys == key])
    often = {}
    for key, parts in found.items():
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        often[key] = values[counts > config.languages[key].maximum_occurrences]
    return often


def mask_schema() -> pa.Schema:
    """The Arrow schema of ``masks.parquet``; ``start`` and ``end`` are character positions in the normalised text."""
    import pyarrow as pa

    return pa.schema([("doc_id", pa.string()), ("rule", pa.string()), ("start", pa.int64()), ("end", pa.int64())])


def _masks(doc_ids: Sequence[str], spans: Mapping[int, list[pii.Span]]) -> pa.Table:
    import pyarrow as pa

    rows = [{"doc_id": doc_ids[index], **span._asdict()} for index, found in sorted(spans.items()) for span in found]
    return pa.Table.from_pylist(rows, mask_schema())
