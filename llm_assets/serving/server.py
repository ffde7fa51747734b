"""Serving the gateway on a port: one a data root, which the state file tells of."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import uvicorn
from filelock import Timeout

from llm_assets.serving.app import create_app
from llm_assets.serving.ports import bind
from llm_assets.serving.state import gateway_lock, gateway_state, gateway_state_path
from llm_assets.store.files import write_json
from llm_assets.store.journal import now
from llm_assets.store.priority import answer_promptly

SWITCH = 0.0005  # seconds for which the event loop may keep the interpreter's lock from an engine that has an answer (Python's default: 0.005)
DRAIN = 5  # seconds that requests in flight have after SIGTERM


class GatewayRunningError(RuntimeError):
    """Another gateway serves this data root."""


def serve(host: str, port: int, home: Path) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one, which the state file names.

    Raises ``PortError`` for a busy port and ``GatewayRunningError`` when the data root has a gateway already.
    """
    listener = bind(host, port, "gateway", "end that process or choose another with --port")
    try:
        lock = gateway_lock(home).acquire(timeout=2)  # an endpoint that asks whether a gateway lives holds it for an instant
    except Timeout as error:
        listener.close()
        state = gateway_state(home) or {}
        other = f"process {state.get('pid')} on {state.get('url')}"
        raise GatewayRunningError(f"{home} has a gateway already, {other}: end it, or use that one") from error
    with lock, listener:
        port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        address = {"pid": os.getpid(), "node": platform.node(), "host": host, "port": port, "url": url, "started": now()}
        write_json(gateway_state_path(home), {**address, "chains": {}})  # over what a gateway that was killed left
        app = create_app(home, address)
        sys.setswitchinterval(SWITCH)
        answer_promptly()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # waking other threads takes longer than a text does
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN)
        print(f"gateway: {url}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
