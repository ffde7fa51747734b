"""The classifier that serves: ONNX Runtime over a quantized model's directory, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.corpus.normalise import NORMALISER_VERSION, normalise

if TYPE_CHECKING:
    import numpy

FILES = ("model.onnx", "tokenizer.json", "serving.json")


class EngineError(RuntimeError):
    """A directory does not hold a model that this release can serve."""


@dataclass(frozen=True)
class Classified:
    """What a model said of one text."""

    probabilities: list[float]  # in the order of the engine's labels, summing to 1
    tokens: int  # after truncation, special tokens included


class OnnxClassifier:
    """A sequence classifier; one instance serves any number of threads, each call using ``threads`` cores.

    Raises ``EngineError`` when a file is missing or damaged, or was made for another text normaliser.
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
        self._tokenizer = _tokenizer(directory / "tokenizer.json", settings["max_length"])
        self._padding = self._tokenizer.token_to_id("[PAD]") or 0
        self._session = _session(directory / "model.onnx", threads)
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, normalised and truncated as in training; their lengths are a request's usage."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch([normalise(text) for text in texts])]

    def classify(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities [texts, labels] in the order of ``labels``."""
        return self.probabilities(self.encode(texts))

    def answer(self, texts: Sequence[str]) -> list[Classified]:
        """Like ``classify``, with each text's number of tokens."""
        encoded = self.encode(texts)
        return [Classified(row, len(ids)) for row, ids in zip(self.probabilities(encoded), encoded, strict=True)]

    def probabilities(self, encoded: Sequence[Sequence[int]]) -> list[list[float]]:
        """Probabilities [texts, labels] of encoded texts, which are padded to the longest among them."""
        import numpy

        if not encoded:
            return []
        return _softmax(numpy.asarray(self._session.run(None, self.feed(encoded))[0])).tolist()  # type: ignore[no-any-return]

    def feed(self, encoded: Sequence[Sequence[int]]) -> dict[str, numpy.ndarray]:
        """What the graph gets of encoded texts, at least one: ids and mask, int64 [texts, length], padded to the longest."""
        import numpy

        length = max(1, *map(len, encoded))
        ids = numpy.full((len(encoded), length), self._padding, dtype=numpy.int64)
        mask = numpy.zeros((len(encoded), length), dtype=numpy.int64)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return {name: value for name, value in (("input_ids", ids), ("attention_mask", mask)) if name in self._inputs}


def _tokenizer(path: Path, max_length: int) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise EngineError(f"{path} is no tokenizer ({error}): materialize quantized_model again") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
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


def _softmax(logits: numpy.ndarray) -> numpy.ndarray:
    """Softmax over the last axis in double precision, so that rows sum to 1 to the last digit shown."""
    import numpy

    shifted = numpy.exp(logits.astype(numpy.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]
