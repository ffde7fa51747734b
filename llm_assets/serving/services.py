"""The services of ``llm-assets up``: Dagster's UI and daemon, MLflow's UI and the gateway."""

from __future__ import annotations

import sys
from pathlib import Path

from llm_assets.serving.supervisor import Service
from llm_assets.store.home import project_root
from llm_assets.store.priority import niceness

HOST = "127.0.0.1"
YIELDING = (sys.executable, "-m", "llm_assets.store.priority")  # before a command: at a lower priority


def gateway_service(home: Path, port: int = 8000, host: str = HOST) -> Service:
    """The gateway over a data root."""
    return Service(
        name="gateway",
        command=[sys.executable, "-m", "llm_assets.serving", "--host", host, "--port", str(port), "--home", str(home)],
        port=port,
        port_option="--gateway-port",
        ready_url=f"http://{host}:{port}/healthz",
        url=f"http://{host}:{port}",
        host=host,
    )


def default_services(home: Path, dagster_port: int = 3000, mlflow_port: int = 5000, gateway_port: int = 8000) -> list[Service]:
    """Everything ``llm-assets up`` runs, on this machine's loopback; Dagster reads the workspace of the project root.

    Dagster's services run in the data root: in a folder with a ``.env`` they would let that file overrule the environment. They,
    and so the runs that they start, yield to the gateway; what computes in runs is held in addition while it is near its peak. Raises
    ``ValueError`` where the environment says nonsense about yielding.
    """
    workspace = str(project_root() / "workspace.yaml")
    mlflow = home / "mlflow"
    mlflow.mkdir(parents=True, exist_ok=True)
    return [
        Service(
            name="dagster",
            command=[*YIELDING, _tool("dagster-webserver"), "-h", HOST, "-p", str(dagster_port), "-w", workspace],
            port=dagster_port,
            port_option="--dagster-port",
            ready_url=f"http://{HOST}:{dagster_port}/server_info",
            url=f"http://{HOST}:{dagster_port}",
            directory=home,
        ),
        Service(name="daemon", command=[*YIELDING, _tool("dagster-daemon"), "run", "-w", workspace], directory=home, may_wait=niceness() > 0),
        Service(
            name="mlflow",
            command=[
                *(_tool("mlflow"), "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{mlflow / 'mlflow.db'}", "--artifacts-destination", str(mlflow / "artifacts")),
            ],
            port=mlflow_port,
            port_option="--mlflow-port",
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # its job runners take 1.9 GB and do nothing here
            ready_url=f"http://{HOST}:{mlflow_port}/health",
            url=f"http://{HOST}:{mlflow_port}",
        ),
        gateway_service(home, gateway_port),
    ]


def _tool(name: str) -> str:
    """A command of the environment this Python runs in, whether or not that is activated."""
    return str(Path(sys.executable).parent / name)
