"""llama.cpp's HTTP server as a process, ``python -m llm_assets.serving.llama_server MODEL CONTEXT SLOTS [ADAPTER ...]``.

The gateway starts and ends it. It reads a key from the first line of standard input, without which the server answers nobody, prints
its address, and ends when standard input does: it outlives no gateway, not even one that was killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import xllamacpp

LONGEST_BATCH = 2048  # tokens whose hidden states one call may ask for (prompt log-probabilities)


def parameters(model: str, context: int, slots: int, key: str, adapters: Sequence[str] = ()) -> xllamacpp.CommonParams:
    """Settings of a server whose ``slots`` generate side by side in one batch, each with a context of its own.

    Adapters are read beside the model and added to it where a request says so: by themselves they count nothing.
    """
    found = xllamacpp.CommonParams()
    found.model.path = model
    found.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in adapters]
    found.n_ctx, found.n_parallel = context * slots, slots
    found.n_ubatch = min(context, LONGEST_BATCH)
    found.n_batch = max(found.n_batch, found.n_ubatch)
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = cores()
    found.n_threads_http = slots + 2  # those that stream, and one to be refused at once
    found.embedding, found.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE  # hidden states on demand
    found.cache_ram_mib = 0  # what clients wrote is kept no longer than their slot is
    found.port, found.api_keys = 0, [key]
    found.ui = found.endpoint_props = found.endpoint_slots = False
    found.verbosity = 0
    return found


def cores() -> int:
    """Cores that this process may use, at most ``OMP_NUM_THREADS``: its threads wait for each other at every layer."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, max(1, int(limit))) if limit.isdecimal() else allowed


def main() -> None:
    """Serve until nothing can be asked any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the gateway still has requests in flight then
    model, context, slots, *adapters = sys.argv[1:]
    server = xllamacpp.Server(parameters(model, int(context), int(slots), sys.stdin.readline().strip(), adapters))
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # what still generates does it for nobody


if __name__ == "__main__":
    main()
