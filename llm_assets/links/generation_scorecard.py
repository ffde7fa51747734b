"""What a chain's decoder is worth, rounded and not, and the gates that a release must pass."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from pydantic import Field

from llm_assets.evaluation.quality import paired_rates
from llm_assets.links import plots
from llm_assets.links.assistant_scores import Asked
from llm_assets.links.champion import OTHER_DOCUMENTS, WORDS, incumbent, not_worse_than_champion, stated
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.gguf_model import QUANTIZED, REFERENCE, read_predictions
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.links.reply_disagreement import foretold
from llm_assets.links.scorecard_page import as_markdown
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_atomic, write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.verdict import Verdict

PROBLEM = "generation"
TRAININGS = 1  # that each figure rests on; the intervals say nothing of another seed
CLOCK = ("p50_ms", "p99_ms", "tokens_per_second", "cost")  # figures that differ from run to run
RESAMPLES = 2000
Rows = Sequence[Mapping[str, Any]]  # of the table of predictions


class GenerationScorecardConfig(Section):
    """How answers are timed, and what the gates ask for."""

    latency_calls: int = Field(20, ge=1, description="answers timed, one at a time")
    answer_tokens: int = Field(32, ge=2, description="tokens in each of them")
    allowed_rise: float = Field(0.02, ge=0, description="share by which rounding may raise the bits per byte of the test documents over F16")
    allowed_loss: float = Field(
        0.01, ge=0, description="share of the champion's bits per byte that a candidate's may lie above them and still be `not worse`"
    )


def scorecard(
    office: Office,
    config: GenerationScorecardConfig,
    pretrained_checkpoint: Artifact,
    finetuned_model: Artifact,
    quantized_model: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    aligned_model: Artifact | None = None,
) -> Acted:
    """Puts the decoder as it is served beside the same at F16: bits per byte of the frozen test split, size, speed and cost.

    Bits per byte come from what llama.cpp made of each test document when the model was rounded, with 95% intervals over
    documents; what the model does in each task stands beside, as finetuned_model (and aligned_model, where the chain has it) measured it
    on the same split, with its baselines.
    The milliseconds to an answer's first token and the tokens a second that follow are measured now, one answer at a time. The
    candidate is compared with the champion on the documents both were read on, by bits per byte.
    """
    tested = {name: read_predictions(quantized_model, name) for name in (REFERENCE, QUANTIZED)}
    trained = [finetuned_model] if aligned_model is None else [finetuned_model, aligned_model]
    costs = _costs(pretrained_checkpoint, *trained, quantized_model)
    sizes = {REFERENCE: quantized_model.metrics["candidates"][REFERENCE]["bytes"], QUANTIZED: quantized_model.metrics["models"][QUANTIZED]["bytes"]}
    speed = _speed(office, config, quantized_model, evaluation_sets)
    models = [
        {
            "name": name,
            **worth(rows),
            "bytes": sizes[name],
            **(speed if name == QUANTIZED else {}),
            "cost": costs,
            "against_reference": None if name == REFERENCE else _rise(rows, tested[REFERENCE]),
        }
        for name, rows in tested.items()
    ]
    record: dict[str, Any] = {
        "chain": office.chain,
        "problem": PROBLEM,
        "models": sorted(models, key=lambda model: -model["test_bits_per_byte"]),
        "tasks": _tasks(trained),
        "baseline": None,
        "seeds": TRAININGS,
        "split": _split_sizes(labelled_examples, evaluation_sets),
        "quantized_model": quantized_model.fingerprint,
        "champion": _against_champion(office, quantized_model, config.allowed_loss, labelled_examples, evaluation_sets),
        "allowed_rise": config.allowed_rise,
    }
    write_json(office.directory / "scorecard.json", record)
    write_atomic(office.directory / "scorecard.md", as_markdown(record))
    bits = {model["name"]: model["test_bits_per_byte"] for model in models}
    plots.bars(office.directory, "models", bits, "Test documents, bits per byte", "bits")
    outcome = [{key: value for key, value in model.items() if key not in CLOCK} for model in record["models"]]
    return Acted(record, digest([quantized_model.fingerprint, outcome, record["split"]])[:24])


def _tasks(trained: Sequence[Artifact]) -> dict[str, dict[str, float]]:
    """What each model does on the test split, by its name: of one that stands in several artifacts the figures of all."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for made in trained:
        for name, splits in made.metrics["models"].items():
            found[name] |= splits["test"]
    return dict(found)


def worth(rows: Rows) -> dict[str, Any]:
    """Bits per byte of documents and perplexity a token, with the 95% interval of the bits where documents are drawn anew.

    Both are of all documents as one text: long ones weigh more (Efron & Tibshirani 1993, chapter 13, for the interval of a ratio).
    """
    import numpy

    nats, sizes, tokens = (numpy.array([row[name] for row in rows], numpy.float64) for name in ("nats", "bytes", "tokens"))
    draws = numpy.random.default_rng(0).multinomial(len(rows), numpy.full(len(rows), 1 / len(rows)), size=RESAMPLES)
    low, high = numpy.quantile((draws @ nats) / (draws @ sizes) / math.log(2), (0.025, 0.975))
    return {
        "test_bits_per_byte": float(nats.sum() / sizes.sum() / math.log(2)),
        "test_bits_per_byte_interval": [float(low), float(high)],
        "test_perplexity": float(numpy.exp(nats.sum() / tokens.sum())),
    }


def spent(rows: Rows) -> dict[str, tuple[float, float]]:
    """Of each document the bits that it costs, and its bytes, as ``paired_rates`` compares."""
    return {row["doc_id"]: (row["nats"] / math.log(2), row["bytes"]) for row in rows}


def _rise(rows: Rows, reference: Rows) -> float:
    ours, theirs = (sum(row["nats"] for row in each) for each in (rows, reference))
    return float(ours / theirs - 1)


def _against_champion(
    office: Office, candidate: Artifact, allowed_loss: float, labelled_examples: Artifact, evaluation_sets: Artifact
) -> dict[str, Any]:
    """The champion's bits per byte minus the candidate's over the documents of both, with the outcomes that ``links/champion.py`` has.

    Two decoders word almost every answer otherwise, so ``disagreement`` is how far they are apart on replies (``reply_disagreement.py``).
    """
    known = incumbent(office, candidate)
    if known.release is None or known.model is None:
        return known.nothing()
    if "test_bits_per_byte" not in known.metrics:
        return known.nothing("the champion does not generate, so nothing could be compared")
    theirs = read_predictions(known.model, QUANTIZED)
    difference = paired_rates(spent(read_predictions(candidate, QUANTIZED)), spent(theirs))
    if difference is None:
        return known.nothing(OTHER_DOCUMENTS)
    allowed = allowed_loss * worth(theirs)["test_bits_per_byte"]
    outcome = difference.outcome(allowed)
    said = WORDS[outcome].format(release=known.release, allowed=allowed, unit="bits per byte")
    found = f"{said}: {difference.mean:+.4f} bits per byte less on {difference.documents} common test documents"
    found += f", 95% interval {difference.low:+.4f} to {difference.high:+.4f}"
    asked = Asked.read(evaluation_sets, ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"]))
    tested = [messages for messages, split in zip(asked.messages, asked.splits, strict=True) if split == "test"]
    apart = foretold(office, candidate, known.model, tested)
    return {"release": known.release, "outcome": outcome, "found": found, **stated(difference), "allowed": allowed, **apart}


def _speed(office: Office, config: GenerationScorecardConfig, quantized_model: Artifact, evaluation_sets: Artifact) -> dict[str, Any]:
    """Milliseconds to the first token of an answer, and tokens a second from there on, of the served engine alone."""
    import numpy

    asked = [text.split("\n", 1)[0] for text in evaluation_sets.table("evaluation.parquet", ["text"])["text"].to_pylist()[: config.latency_calls]]
    timed = []
    with closing(Generator(quantized_model.directory, slots=1)) as engine:
        for number, question in enumerate(asked):
            office.progress(number, len(asked), "answers timed")
            prompt = engine.chat([{"role": "user", "content": question}])[: engine.context - config.answer_tokens]
            timed.append(asyncio.run(_timed(engine, prompt, config.answer_tokens)))
    first, rates = zip(*timed, strict=True)
    p50, p99 = numpy.percentile(first, (50, 99))
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "tokens_per_second": round(float(numpy.median(rates)), 1)}


async def _timed(engine: Generator, prompt: Sequence[int], tokens: int) -> tuple[float, float]:
    """Milliseconds to the first token of a greedy answer, and the tokens a second that followed it; its end is not looked for, so that all
    answers are as long.

    The rate is by llama.cpp's clock, which starts at the first token: what comes soon after one another arrives here as one piece.
    """
    began, first = time.perf_counter(), 0.0
    async for events in engine.generate(prompt, {"n_predict": tokens, "temperature": 0, "ignore_eos": True}):
        first = first or 1000 * (time.perf_counter() - began)
        told = events[-1]
    return first, 1000 * (told["timings"]["predicted_n"] - 1) / told["timings"]["predicted_ms"]


def _costs(*made: Artifact) -> dict[str, float]:
    """Seconds and peak memory that it took to make the model."""
    return {
        "seconds": round(sum(artifact.manifest.seconds for artifact in made), 3),
        "peak_memory_bytes": max(artifact.manifest.peak_memory_bytes for artifact in made),
    }


def _split_sizes(labelled_examples: Artifact, evaluation_sets: Artifact) -> dict[str, int]:
    splits = evaluation_sets.table("evaluation.parquet", ["split"])["split"].to_pylist()
    return {"train": labelled_examples.rows("train.parquet"), **{split: splits.count(split) for split in ("validation", "test")}}


def _rise_within(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    model = next(model for model in record["models"] if model["name"] == QUANTIZED)
    rise, allowed = model["against_reference"], record["allowed_rise"]
    return Verdict(
        check="rise_within",
        passed=rise <= allowed,
        description=f"{model['test_bits_per_byte']:.4f} bits per byte on the test split, {rise:+.2%} against F16; at most {allowed:+.2%} is allowed",
        values={"rise": rise, "allowed": allowed},
    )


LINK = Link(
    name="scorecard",
    variant=PROBLEM,
    version=4,
    make=scorecard,
    config=GenerationScorecardConfig,
    inputs=("pretrained_checkpoint", "finetuned_model", "aligned_model", "quantized_model", "labelled_examples", "evaluation_sets"),
    stage="model",
    role="data_scientist",
    kinds=("python",),
    checks=(
        Check("rise_within", "Rounding raises the bits per byte of the test documents by at most the allowed share.", _rise_within),
        Check("not_worse_than_champion", "The candidate is not worse than the champion on the same documents.", not_worse_than_champion),
    ),
    act=True,
)
