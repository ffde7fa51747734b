"""The house's walls: arrows go down only, and heavy or foreign imports stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llm_assets

PACKAGE = Path(llm_assets.__file__).parent
FLOORS = [
    {"cli", "definitions", "defs"},
    {"terminal"},
    {"components"},
    {"audit", "operation"},
    {"links"},
    {"corpus", "training", "compression", "evaluation", "knowledge", "serving"},
    {"tracking", "environments"},
    {"store"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# On one floor: compression and evaluation load the classifiers that training defines (transformers knows them once
# training/architectures.py is imported), compression writes down how the corpus's tokenizers cut, evaluation may use serving's
# engines, serving normalises text as the corpus does, training makes the weights of the corpus's recogniser of names, since
# torch stays out of the corpus; operation says who answers for which question of the audit.
DOORS = {
    ("compression", "training"),
    ("compression", "corpus"),
    ("evaluation", "training"),
    ("evaluation", "serving"),
    ("serving", "corpus"),
    ("evaluation", "corpus"),
    ("training", "corpus"),
    ("operation", "audit"),
    ("cli", "definitions"),
    ("definitions", "defs"),
}
# The front door of the package, and what the terminal asks of the chains, reach up on purpose, each inside a function.
EXEMPT = {"__init__.py", "terminal/doctor.py", "terminal/settings.py"}
HEAVY = ("torch", "transformers", "deepspeed", "mlflow", "great_expectations")


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in EXEMPT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_arrows_go_down(path: Path) -> None:
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "llm_assets" or len(parts) < 2 or parts[1] == room:
            continue
        target = parts[1]
        assert FLOOR[room] < FLOOR[target] or (room, target) in DOORS, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_foreign_imports_stay_in_their_rooms(path: Path) -> None:
    room, roots = _room(path), {name.split(".")[0] for name in _imports(path)}
    if FLOOR[room] > FLOOR["operation"]:
        assert "dagster" not in roots, f"{path} knows Dagster"
    if room == "corpus":
        assert "torch" not in roots


def test_nothing_is_unpickled() -> None:
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert not _imports(path) & {"pickle", "dill", "joblib", "marshal"}, path
        assert "allow_pickle=True" not in source, path
        assert "weights_only=False" not in source, path


def test_the_code_location_loads_nothing_heavy() -> None:
    script = f"import sys, llm_assets.definitions as d; d.defs(); print([m for m in {HEAVY!r} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip().splitlines()[-1] == "[]"


def test_the_rooms_are_the_ones_described() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= set(FLOOR)
