from __future__ import annotations

from pathlib import Path

from llm_assets.audit.integrity import Damage, damage_of, quarantine
from llm_assets.store.store import Store

from .conftest import break_manifest, commit, flip


def damages(store: Store) -> list[Damage]:
    return [damage for name in store.names() for damage in damage_of(store, name)]


def test_every_kind_of_damage_is_found_and_nothing_else(store: Store) -> None:
    whole, flipped, missing, unreadable = (commit(store, "tokens", text=text) for text in ("whole", "flipped", "missing", "unreadable"))
    path = flipped.path("a.txt")
    path.write_bytes(flip(path.read_bytes()))
    missing.path("a.txt").unlink()
    break_manifest(unreadable)
    found = {damage.fingerprint: damage.reason for damage in damages(store)}
    assert found.keys() == {flipped.fingerprint, missing.fingerprint, unreadable.fingerprint}
    assert "does not have the hash" in found[flipped.fingerprint]
    assert "is missing" in found[missing.fingerprint]
    assert "manifest.json is damaged" in found[unreadable.fingerprint]
    assert whole.fingerprint not in found


def test_quarantine_moves_it_out_with_its_bytes(store: Store, remote: Store) -> None:
    for place in (store, remote):
        artifact = commit(place, "tokens")
        place.filesystem.pipe_file(f"{place.root}/tokens/{artifact.fingerprint}/a.txt", b"spoiled")
        (damage,) = damages(place)
        assert (quarantine(place, damage) / "a.txt").read_bytes() == b"spoiled"
        assert place.find("tokens", artifact.fingerprint) is None
        assert damages(place) == []


def test_a_flipped_bit_in_the_cache_is_no_damage_and_is_mended(remote: Store) -> None:
    path = commit(remote, "tokens").path("a.txt")
    assert path.is_relative_to(remote.cache)
    path.write_bytes(flip(b"text"))
    assert damages(remote) == []
    assert path.read_bytes() == b"text"


def test_a_flipped_bit_in_the_remote_root_is_damage(remote: Store) -> None:
    artifact = commit(remote, "tokens")
    place = f"{remote.root}/tokens/{artifact.fingerprint}/a.txt"
    remote.filesystem.pipe_file(place, flip(b"text"))
    (damage,) = damages(remote)
    assert (damage.link, damage.fingerprint) == ("tokens", artifact.fingerprint)
    assert damage.reason.startswith(f"{place} does not have the hash")
    assert Path(artifact.path("a.txt")).read_bytes() == b"text"
    remote.filesystem.rm_file(place)
    (damage,) = damages(remote)
    assert damage.reason.startswith(f"{place} is missing")
