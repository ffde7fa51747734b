"""Which source files a link's behaviour stands in, and one hash over them that ignores comments and docstrings."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

from llm_assets.store.fingerprint import digest

PACKAGE = Path(__file__).resolve().parents[1]
GROUND = ("llm_assets.store", "llm_assets.links.link", "llm_assets.links.plots", "llm_assets.serving", "llm_assets.environments")  # shapes no result
COUNTED = ("llm_assets.serving.engine",)  # but quantized_model's predictions come through it


@cache
def source_files(module: str) -> tuple[Path, ...]:
    """The files of ``module`` and of every llm_assets module it imports, however deep, in sorted order."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if path is None or path in found or (name.startswith(GROUND) and name not in COUNTED):
            continue
        found.add(path)
        waiting += _imports(path)
    return tuple(sorted(found))


@cache
def code_hash(module: str) -> str:
    """A digest of the syntax trees of ``source_files``: changes with behaviour, not with comments, docstrings or layout."""
    return digest({path.relative_to(PACKAGE).as_posix(): _shape(path) for path in source_files(module)})[:24]


@cache
def git_state() -> dict[str, str | bool | None]:
    """The commit this code stands at and whether files differ from it; nulls outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", "llm_assets"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@cache
def git_remote() -> str:
    """The URL that the repository comes from, without a password; of one that comes from nowhere its own folder's."""
    try:
        remote = _git("config", "--get", "remote.origin.url")
    except (OSError, subprocess.CalledProcessError):
        return PACKAGE.parent.as_uri()
    return as_url(remote, PACKAGE.parent)


def as_url(remote: str, checkout: Path) -> str:
    """What git takes for a remote as a URL: ``user@host:path`` is ssh, a path is a file's, one relative to the checkout too."""
    if "://" in remote:
        return re.sub(r"//[^/\s]*@", "//", remote)
    if found := re.fullmatch(r"(?:[^@/:]+@)?([^/:]+):(.*)", remote):
        return f"ssh://{found[1]}/{found[2].lstrip('/')}"
    return (checkout / remote).resolve().as_uri()


def _git(*arguments: str) -> str:
    result = subprocess.run(("git", *arguments), cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def _path(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE.name}."):
            names.append(node.value)  # a module run as a process of its own, such as the training worker
    return [name for name in names if name.split(".")[0] == PACKAGE.name]


def _shape(path: Path) -> object:
    return _outline(ast.parse(path.read_text(encoding="utf-8")))


def _outline(node: object) -> object:
    """A syntax tree as nested lists, without docstrings, positions and empty fields: ``ast.dump`` differs between
    Python 3.11 and 3.12 in the empty fields it prints.
    """
    if isinstance(node, list):
        return [_outline(item) for item in node if not _is_docstring(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [[name, _outline(value)] for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *fields]


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
