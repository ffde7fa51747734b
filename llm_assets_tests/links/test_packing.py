from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.links.link import Bench
from llm_assets.links.packing import Encoded, pack
from llm_assets_tests.corpus.material import no_launch


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 40), max_size=12), st.integers(8, 20), st.integers(0, 2**12))
def test_any_lengths_pack_and_unpack(lengths: list[int], context: int, held: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), Path(folder), 0, Path(folder), no_launch)
        sizes = np.array(lengths, np.int64)
        contents = [np.arange(size, dtype="<u2") + 1000 * number for number, size in enumerate(lengths)]
        (bench.scratch / "encoded.bin").write_bytes(b"".join(one.tobytes() for one in contents))
        names = np.array([f"{number:020x}" for number in range(len(lengths))], "S20")
        places, sources = np.cumsum(sizes) - sizes, np.zeros(len(sizes), np.int16)
        encoded = Encoded(bench.scratch / "encoded.bin", np.dtype("<u2"), names, sizes, places, sources, ("test",))
        held_out = np.array([held >> number & 1 for number in range(len(lengths))], np.bool_)
        packed = pack(encoded, held_out, context, 7, bench)
        stream = np.fromfile(bench.directory / "tokens.bin", "<u2")
    assert len(stream) == sum(packed.blocks) * context
    assert all(stream[start : start + len(one)].tolist() == one.tolist() for start, one in zip(packed.starts, contents, strict=True))
    assert all((start >= packed.blocks[0] * context) == out for start, out in zip(packed.starts, held_out, strict=True))
    filled = np.zeros(len(stream), np.bool_)
    for start, size in zip(packed.starts, sizes, strict=True):
        filled[start : start + size] = True
    assert filled.sum() == sizes.sum() and set(stream[~filled].tolist()) <= {7}
