from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.audit.signature import key_path, sign, signature_breaks, signature_path
from llm_assets.store.ledger import Ledger
from llm_assets.store.store import Store

from .conftest import commit


@pytest.fixture
def ledger(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("LLM_ASSETS_SIGNING_KEY", str(tmp_path / "keys" / "key.pem"))
    commit(store, "corpus")
    return store.ledger


def test_a_signature_holds_while_the_ledger_grows(ledger: Ledger, store: Store) -> None:
    assert signature_breaks(ledger) == []
    public = sign(ledger)
    assert len(public) == 64 and key_path().stat().st_mode & 0o777 == 0o600
    commit(store, "tokens")
    assert signature_breaks(ledger) == [] and sign(ledger) == public


def test_a_ledger_written_anew_is_found(ledger: Ledger, store: Store) -> None:
    sign(ledger)
    ledger.path.unlink()
    commit(store, "tokens")
    commit(store, "labels")
    assert ledger.breaks() == []  # its own hashes follow each other
    assert "are not those that were signed" in signature_breaks(ledger)[0]


def test_another_key_and_a_forged_signature_are_found(ledger: Ledger) -> None:
    sign(ledger)
    signed = json.loads(signature_path(ledger).read_text())
    signature_path(ledger).write_text(json.dumps({**signed, "head": "0" * 64}))
    assert "does not hold" in signature_breaks(ledger)[0]
    key_path().unlink()
    sign(ledger)
    other = json.loads(signature_path(ledger).read_text())["public_key"]
    signature_path(ledger).write_text(json.dumps(signed))
    assert f"signed with key {signed['public_key'][:16]}, which is not that of" in signature_breaks(ledger)[0] and other != signed["public_key"]
