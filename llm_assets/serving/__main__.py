"""``python -m llm_assets.serving --port 8000``: the gateway in a process of its own."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from llm_assets.serving.ports import PortError
from llm_assets.serving.server import GatewayRunningError, serve
from llm_assets.store.home import data_root


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m llm_assets.serving", description="Serve what the chains' endpoints ask for.")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--home", type=Path, default=None, help="data root (default: LLM_ASSETS_HOME, else data/ in the project)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        serve(arguments.host, arguments.port, (arguments.home or data_root()).resolve())
    except (PortError, GatewayRunningError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # ended by Ctrl-C, as shells count it


main()
