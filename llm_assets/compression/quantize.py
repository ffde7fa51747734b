"""Eight-bit weights and activations."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

# Only these get ranges fixed beforehand. Embeddings are a Gather: without it the file has 11.5 MB instead of 3.7. Other kinds make it no
# smaller, and what they cost differs from model to model: `python -m benchmarks rounding` tells.
STATIC_NODES = ("MatMul", "Gemm", "Gather")


def quantize_dynamic(source: Path, target: Path, per_channel: bool = False) -> None:
    """Write ``source`` with int8 weights and activations quantized as they come (ONNX Runtime's dynamic quantization).

    Matrix products and embeddings shrink to a quarter. ``per_channel`` keeps one scale an output channel instead of one
    a matrix: on a ModernBERT of 2.5M parameters and 2,668 reviews it agreed with float on 99.4% instead of 99.9%. Needs no
    calibration data.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    with _prepared(source, target) as prepared:
        quantize(prepared, target, weight_type=QuantType.QInt8, per_channel=per_channel)


def quantize_static(
    source: Path, target: Path, feeds: Iterable[Mapping[str, numpy.ndarray]], per_channel: bool = False, nodes: Sequence[str] = STATIC_NODES
) -> None:
    """Write ``source`` with int8 weights and uint8 activations whose ranges are fixed: the smallest and largest value over ``feeds``.

    Each feed is what one call of the graph gets, by input name. The graph says its rounding in pairs of QuantizeLinear and
    DequantizeLinear (QDQ; Jacob et al. 2018, section 2.1), of which ONNX Runtime makes integer products.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    class Feeds(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    with _prepared(source, target) as prepared:
        quantize(
            prepared, target, Feeds(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            per_channel=per_channel, op_types_to_quantize=list(nodes),
        )  # fmt: skip


@contextmanager
def _prepared(source: Path, target: Path) -> Iterator[Path]:
    """The graph with its constants folded, in a folder that goes again; the library is kept from advising on every graph."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it speaks through the root logger
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            yield prepared
    finally:
        logger.setLevel(level)
