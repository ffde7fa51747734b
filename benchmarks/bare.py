"""The gateway's batcher and engine behind nothing but uvicorn: what is left when nothing is checked, counted, split or logged.

``MODEL=FOLDER uvicorn --factory benchmarks.bare:create`` runs it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_assets.serving.batching import Batcher
from llm_assets.serving.cores import Cores
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.server import SWITCH


def create() -> ASGIApp:
    """The application over the folder of a served model."""
    sys.setswitchinterval(SWITCH)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    batcher = Batcher(OnnxClassifier(Path(os.environ["MODEL"])), Cores())

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": f"{message['type']}.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answers = [{"probs": answer.probabilities} for answer in await batcher.submit(json.loads(body)["input"])]
        content = json.dumps(answers).encode()
        headers = [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return application
