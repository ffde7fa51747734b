from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_assets.serving.supervisor import Service, start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a user's own MLflow server, which stands in a folder apart from any data root."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = Service(
        name="mlflow",
        command=[
            *(str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")),
        ],
        port=port,
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ready_url=f"{url}/health",
    )
    with start(service, folder / "mlflow.log"):
        yield url
