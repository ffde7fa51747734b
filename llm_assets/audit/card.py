"""The model card of a release in Hugging Face's format: what it is, what it learned from, what it is worth and where it ends, all from records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from llm_assets.audit.cost import joules_to_make
from llm_assets.audit.index import Release
from llm_assets.audit.page import STYLE
from llm_assets.audit.provenance import Lineage
from llm_assets.audit.training_content import languages, table, training_content
from llm_assets.store.manifest import Manifest

SCORES = {
    "accuracy": "Accuracy", "macro_f1": "Macro F1", "micro_f1": "Micro F1", "r2": "R2", "mae": "Mean absolute error",
    "bits_per_byte": "Bits per byte", "perplexity": "Perplexity",
}  # fmt: skip
PLAIN = ("MIT", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "BSD-3-Clause", "GPL-3.0")  # that the hub knows in lower case


class CardError(RuntimeError):
    """A model card was asked of what is no release."""


def model_card(lineage: Lineage) -> str:
    """The card as Markdown with its YAML head. Raises ``CardError`` for what is no release."""
    release = lineage.release
    if release is None:
        raise CardError(f"a model card is one of a release, and {lineage.wanted} is none")
    manifests = {node.link: node.manifest for node in lineage.nodes.values() if node.manifest}
    parts = [
        _head(lineage, release, manifests),
        f"# {release.release}\n",
        *_details(lineage, release, manifests),
        *_worth(lineage, release),
        *_licences(lineage),
        training_content(lineage),
        *_tracing(release),
    ]
    return "\n".join(parts)


def model_card_page(lineage: Lineage) -> str:
    """The same card as one HTML page that stands alone; what heads the Markdown for programs stands at its end."""
    from markdown_it import MarkdownIt

    _, head, body = model_card(lineage).split("---\n", 2)
    shown = MarkdownIt("commonmark", {"html": False}).enable("table").render(body)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Model card of {escape(lineage.wanted)}</title><style>{STYLE}</style>\n'
        f"{shown}<details><summary>Metadata</summary><pre>{escape(head)}</pre></details>\n</html>\n"
    )


def _head(lineage: Lineage, release: Release, manifests: Mapping[str, Manifest]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metrics, task = release.record.get("metrics") or {}, "text-generation" if lineage.talks else "text-classification"
    results = [
        EvalResult(task, "evaluation_sets", f"{release.chain} test set", name, metrics[f"test_{name}"], dataset_split="test")
        for name in SCORES
        if f"test_{name}" in metrics
    ]
    licenses = lineage.licenses
    plain = licenses[0].lower() if len(licenses) == 1 and licenses[0] in PLAIN else "other"
    data = ModelCardData(
        language=languages(manifests) or None,
        license=plain,
        license_name=None if plain != "other" else "several",
        library_name="gguf" if lineage.talks else "onnx",
        pipeline_tag=task,
        tags=["llm_assets", release.chain],
        model_name=release.release,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _details(lineage: Lineage, release: Release, manifests: Mapping[str, Manifest]) -> Iterator[str]:
    model, pretrained = manifests.get("quantized_model"), manifests.get("pretrained_checkpoint")
    commit = model.code.get("commit") if model else None
    seconds, core_seconds = (sum(getattr(one, key) for one in manifests.values()) for key in ("seconds", "core_seconds"))
    joules = joules_to_make(manifests.values())
    rows: list[tuple[str, Any]] = [
        ("released", f"{release.at}, approved by {lineage.approved_by or 'nobody'}"),
        ("model", f"quantized_model {release.model}"),
        ("made by", f"llm_assets {model.libraries.get('llm-assets', '')}, commit {commit or 'unknown'}" if model else "unknown"),
        (
            f"parameters of the pretrained {'decoder' if lineage.talks else 'encoder'}",
            f"{pretrained.metrics.get('parameters', 0):,}" if pretrained else "not recorded",
        ),
        ("size", f"{model.metrics['models']['quantized']['bytes']:,} bytes" if model and "models" in model.metrics else "not recorded"),
        ("time used", f"{seconds:,.0f} s, {core_seconds:,.0f} core-seconds"),
        ("energy used by the processors", f"{joules / 3600:,.1f} Wh" if joules is not None else "not measured: the machine shows no counters"),
        ("licences of what it learned from", ", ".join(lineage.licenses) or "none stated"),
    ]
    yield "## Model details\n"
    yield table(("", ""), rows)


def _worth(lineage: Lineage, release: Release) -> Iterator[str]:
    metrics = release.record.get("metrics") or {}
    rows = []
    for name, title in SCORES.items():
        if (value := metrics.get(f"test_{name}")) is not None:
            interval = metrics.get(f"test_{name}_interval")
            rows.append((title, f"{value:.4f}", f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "none"))
    calibration = (("calibration_error", "Calibration error"), ("brier_score", "Brier score"))
    rows += [(title, f"{metrics[key]:.4f}", "none") for key, title in calibration if key in metrics]
    yield "## Evaluation\n"
    yield "On the chain's frozen test set, which no training text repeats (check `decontaminated`); intervals are 95% over documents.\n"
    yield table(("figure", "value", "95% interval"), rows)
    yield "## Measured limits\n"
    gates = [(one["check"], "passed" if one["passed"] else "failed", one["description"]) for one in lineage.gates]
    yield table(("gate", "", "what was found"), gates)
    classes = metrics.get("per_class") or {}
    if classes:
        figures = ("precision", "recall", "f1")
        labels = [(label, *(f"{one[key]:.3f}" for key in figures), f"{one['support']:,}") for label, one in classes.items()]
        yield table(("label", *figures, "documents"), labels)
    yield "It was measured on nothing else: other kinds of text, other languages and other labels are outside what these figures say.\n"


def _licences(lineage: Lineage) -> Iterator[str]:
    yield "## What the licences demand\n"
    yield "Of what it learned from; no legal advice.\n"
    yield "\n".join(f"- {one}" for one in lineage.obligations) or "- none is stated"
    yield ""


def _tracing(release: Release) -> Iterator[str]:
    yield "## Tracing\n"
    yield f"`llm-assets lineage {release.release}` shows all it stands on, `llm-assets trace DOC_ID` whether it learned from a document,"
    yield f"`llm-assets verify {release.release}` whether these records are true, `llm-assets bom {release.release}` its bill of materials.\n"
