"""Whether a link's sources changed without its version: the recorded hashes, and the command that records new ones.

`python -m llm_assets.links.versions` lists what changed; `--accept LINK` records it, with `--because` when the version stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_assets.links.chain import EVERY
from llm_assets.links.link import Link
from llm_assets.links.sources import code_hash
from llm_assets.store.files import write_json

RECORDED = Path(__file__).with_name("versions.json")


def changed_links(recorded: dict[str, Any], links: Iterable[Link] = EVERY) -> list[str]:
    """A sentence a link whose sources differ from the record under the same version."""
    changes = []
    for link in links:
        entry = recorded.get(link.identity)
        if entry is None:
            changes.append(f"{link.identity}: not recorded yet")
        elif entry["version"] == link.version and entry["hash"] != code_hash(link.make.__module__):
            changes.append(f"{link.identity}: its sources changed and its version is still {link.version}")
        elif entry["version"] != link.version:
            changes.append(f"{link.identity}: version {entry['version']} is recorded, the link says {link.version}")
    return changes


def read_recorded() -> dict[str, Any]:
    """The recorded versions and hashes by link."""
    return json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}


def accept(recorded: dict[str, Any], link: Link, because: str | None) -> dict[str, Any]:
    """The record with a link's present hash. Raises ``ValueError`` when the version stays and no reason is given."""
    entry = recorded.get(link.identity, {"version": None, "exemptions": []})
    code = code_hash(link.make.__module__)
    if entry["version"] == link.version and entry["hash"] != code:
        if not because:
            raise ValueError(f"{link.identity} keeps version {link.version}: raise it in the link, or say --because why no result changes")
        entry = {**entry, "exemptions": [*entry["exemptions"], {"hash": code, "because": because}]}
    elif entry["version"] != link.version:
        entry = {"version": link.version, "exemptions": []}
    return {**recorded, link.identity: {**entry, "hash": code}}


def main(arguments: list[str] | None = None) -> int:
    """The command; exits 1 while something is unrecorded."""
    parser = argparse.ArgumentParser(prog="python -m llm_assets.links.versions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--accept", metavar="LINK", nargs="+", choices=[link.identity for link in EVERY], default=[])
    parser.add_argument("--because", metavar="REASON", help="why a change of sources changes no result")
    given = parser.parse_args(arguments)
    recorded = read_recorded()
    for link in EVERY:
        if link.identity in given.accept:
            try:
                recorded = accept(recorded, link, given.because)
            except ValueError as error:
                parser.error(str(error))
    if given.accept:
        write_json(RECORDED, recorded)
    changes = changed_links(recorded)
    print("\n".join(changes) or "every link's sources are as recorded")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
