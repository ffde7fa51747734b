"""Stores as tagged versions of the project wrote them, a small one each, in ``<version>.tar.gz``: later versions must know what to do with them.

`python -m llm_assets_tests.stores` writes the present version's (two minutes of two cores): the chain `reviews`, preset tiny,
run in a data root of its own, its release asked one question through the gateway. Then what is large and can be made again is
removed as `llm-assets gc` removes it, its manifest staying, and what belongs to one machine, its name too, is left out. It is packed once it
verifies. A store is never written anew under a version that has been tagged.
"""

from __future__ import annotations

import tarfile
import tempfile
import tomllib
from pathlib import Path

from llm_assets.audit.index import Index
from llm_assets.audit.verify import verify_all
from llm_assets.store.store import Store

FOLDER = Path(__file__).parent
QUESTION = "这家酒店的早餐很好吃，房间也很干净"
HOST = "localhost"  # what the manifests call the machine
KEPT = ("evaluation_sets", "tokenizer", "quantized_model")
PACKED = ("artifacts", "audit/chain.jsonl", "journal", "serving")  # of a data root: what a store is, without Dagster's and MLflow's databases
REASON = "a fixture holds no more than it needs to verify, to serve and to be planned on"


def present_version() -> str:
    """The version that ``pyproject.toml`` names."""
    return str(tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def pack(home: Path, target: Path) -> None:
    """Prune a data root and pack it. Raises ``RuntimeError`` where what is left does not verify."""
    store = Store(home)
    for name in [name for name in store.names() if name[0] not in KEPT]:
        store.remove(*name, REASON)
    index = Index(store)
    index.refresh()
    damages = verify_all([index]).damages
    index.close()
    if damages:
        raise RuntimeError(f"what is left of {home} does not verify: {damages}")
    with tarfile.open(target, "w:gz", compresslevel=9) as archive:
        for part in PACKED:
            archive.add(home / part, part, filter=_without_locks)


def unpack(version: str, home: Path) -> None:
    """A version's store as a data root of its own."""
    with tarfile.open(FOLDER / f"{version}.tar.gz") as archive:
        archive.extractall(home, filter="data")


def versions() -> list[str]:
    """The versions of which a store is kept."""
    return sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz"))


def main() -> None:
    """Write the present version's store."""
    from llm_assets_tests.running import succeed
    from llm_assets_tests.serving.conftest import gateway

    target = FOLDER / f"{present_version()}.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        succeed(home, "run", "reviews", "--preset", "tiny", LLM_ASSETS_HOST=HOST)
        with gateway(home) as (client, _):
            client.post("/v1/classify", json={"model": "reviews", "input": QUESTION}).raise_for_status()
        pack(home, target)
    print(f"{target}: {target.stat().st_size / 1e3:,.0f} kB")


def _without_locks(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.name.endswith(".lock") or "gateway" in entry.name.rpartition("/")[2]:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
