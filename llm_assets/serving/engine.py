"""The classifier that serves: ONNX Runtime over a quantized model's directory, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise
from llm_assets.store.files import sha256_file

if TYPE_CHECKING:
    import numpy

FILES = ("model.onnx", "tokenizer.json", "serving.json")
SINGLE_LABEL, SEPARATOR = "single_label", "|"  # as in training/heads.py, which serving does without
BATCH = 64  # windows in one call of the graph: a request of a million characters must not fill the memory


class EngineError(RuntimeError):
    """A directory does not hold a model that this release can serve."""


@dataclass(frozen=True)
class Classified:
    """What a model said of one text."""

    probabilities: list[float]  # in the order of the engine's labels, summing to 1 where each text has one label; a number for a regression
    tokens: int  # read by the model, special tokens included


class OnnxClassifier:
    """A sequence classifier; one instance serves any number of threads, each call using ``threads`` cores.

    A text over the model's length is cut, or read in overlapping windows whose probabilities are averaged, as in training:
    ``serving.json`` says which. Raises ``EngineError`` when a file is missing or damaged, was made for another text normaliser,
    or is not of one model with the others.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        if missing := [name for name in FILES if not (directory / name).is_file()]:
            raise EngineError(f"{directory} holds no {', '.join(missing)}: materialize quantized_model again")
        settings = json.loads((directory / "serving.json").read_text(encoding="utf-8"))
        if settings["normaliser"] != NORMALISER_VERSION:
            raise EngineError(
                f"{directory} was trained on text of normaliser {settings['normaliser']}, this release applies {NORMALISER_VERSION}: "
                "materialize the chain again, or serve it with the release that made it"
            )
        self.labels: list[str] = settings["labels"]
        self.problem: str = settings.get("problem", SINGLE_LABEL)  # releases before it had this one
        self._overlap: int | None = settings.get("overlap")
        self._tokenizer = _tokenizer(directory / "tokenizer.json", settings["max_length"], self._overlap)
        self._padding: int = settings.get("padding", 0)  # of no consequence but to models that tell positions by it
        self._session = _session(directory / "model.onnx", threads)
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        _refuse_mixture(directory, self._session, self.labels)

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The windows of each text as token ids, normalised as in training; one window where it is short, or long and cut."""
        found = self._tokenizer.encode_batch([normalise(text) for text in texts])
        if self._overlap is None:
            return [[encoding.ids] for encoding in found]
        return [[encoding.ids, *(rest.ids for rest in encoding.overflowing)] for encoding in found]

    def described(self) -> dict[str, Any]:
        """What the list of models says of it."""
        return {"task": "classification", "labels": self.labels, "problem": self.problem, "context": None}

    def classify(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities [texts, labels] in the order of ``labels``."""
        return self.probabilities(self.encode(texts))

    def answer(self, texts: Sequence[str]) -> list[Classified]:
        """Like ``classify``, with each text's number of tokens, a request's usage."""
        encoded = self.encode(texts)
        return [Classified(row, sum(map(len, windows))) for row, windows in zip(self.probabilities(encoded), encoded, strict=True)]

    def probabilities(self, encoded: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Probabilities [texts, labels] of encoded texts, the mean over each one's windows."""
        import numpy

        windows = [window for text in encoded for window in text]
        if not windows:
            return []
        pieces = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
        logits = numpy.concatenate([self._session.run(None, self.feed(piece))[0] for piece in pieces])
        answers = activated(self.problem, logits)
        if len(windows) == len(encoded):
            return answers.tolist()  # type: ignore[no-any-return]
        first = numpy.cumsum([0, *(len(text) for text in encoded[:-1])])
        counts = numpy.array([len(text) for text in encoded])
        return (numpy.add.reduceat(answers, first) / counts[:, None]).tolist()  # type: ignore[no-any-return]

    def feed(self, windows: Sequence[Sequence[int]]) -> dict[str, numpy.ndarray]:
        """What the graph gets of windows, at least one: ids and mask, int64 [windows, length], padded to the longest.

        A graph that asks for token types gets 0 everywhere, the first of two sentences.
        """
        import numpy

        length = max(1, *map(len, windows))
        ids = numpy.full((len(windows), length), self._padding, dtype=numpy.int64)
        mask = numpy.zeros((len(windows), length), dtype=numpy.int64)
        for row, tokens in enumerate(windows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return {name: every[name] for name in self._inputs}


def _tokenizer(path: Path, max_length: int, overlap: int | None) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise EngineError(f"{path} is no tokenizer ({error}): materialize quantized_model again") from error
    tokenizer.encode_special_tokens = True  # a text that speaks of [MASK] is read letter by letter, as in training
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, stride=overlap or 0)
    return tokenizer


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; they also arrive as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise EngineError(f"{path} does not load ({error}): materialize quantized_model again") from error


def _refuse_mixture(directory: Path, session: Any, labels: Sequence[str]) -> None:
    """Raise ``EngineError`` where the graph was made for other labels, another order of them, or another tokenizer.

    The graph's notes say for which (``links/quantized_model.py``); one of an earlier release has none and is taken as it is.
    """
    notes = session.get_modelmeta().custom_metadata_map
    if "labels" in notes and json.loads(notes["labels"]) != list(labels):
        found, said = ", ".join(json.loads(notes["labels"])), ", ".join(labels)
        raise EngineError(f"{directory}: model.onnx answers {found} in this order, serving.json says {said}: materialize quantized_model again")
    if "tokenizer" in notes and notes["tokenizer"] != sha256_file(directory / "tokenizer.json"):
        raise EngineError(f"{directory}: tokenizer.json is not the one that model.onnx was trained with: materialize quantized_model again")


def activated(problem: str, logits: numpy.ndarray) -> numpy.ndarray:
    """Probabilities by softmax or sigmoid, or a regression's values, of logits [windows, labels], in double precision so that rows sum to 1."""
    import numpy

    exact = logits.astype(numpy.float64)
    if problem == "regression":
        return exact
    if problem == "multi_label":
        return 1 / (1 + numpy.exp(-exact))
    shifted = numpy.exp(exact - exact.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def decided(problem: str, probabilities: Sequence[float], labels: Sequence[str]) -> str:
    """The answer, written like a label in a table: the likeliest name, all names with one half or more with a bar between, or the number."""
    if problem == "regression":
        return repr(float(probabilities[0]))
    if problem == "multi_label":
        return SEPARATOR.join(sorted(label for label, probability in zip(labels, probabilities, strict=True) if probability >= 0.5))
    return labels[max(range(len(labels)), key=probabilities.__getitem__)]
