"""The ledger signed with an Ed25519 key of the user's, so that nobody else can write another ledger unnoticed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.store.files import write_json
from llm_assets.store.journal import now
from llm_assets.store.ledger import Ledger

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "LLM_ASSETS_SIGNING_KEY"


def signature_path(ledger: Ledger) -> Path:
    """Where the signature stands: beside the ledger."""
    return ledger.path.with_suffix(".signature.json")


def key_path() -> Path:
    """The private key, PEM: ``LLM_ASSETS_SIGNING_KEY``, else ``$XDG_CONFIG_HOME/llm_assets/signing_key.pem``; outside the data root it signs."""
    if configured := os.environ.get(KEY_VARIABLE):
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").expanduser() / "llm_assets" / "signing_key.pem"


def sign(ledger: Ledger) -> str:
    """Sign all lines the ledger has now; the key is made where there is none. Returns the public key in hexadecimal."""
    key = _private_key(key_path())
    lines = sum(1 for _ in ledger.lines())
    head = _head(ledger, lines)
    public = key.public_key().public_bytes_raw().hex()
    signed = {"at": now(), "lines": lines, "head": head, "public_key": public, "signature": base64.b64encode(key.sign(bytes.fromhex(head))).decode()}
    write_json(signature_path(ledger), signed)
    return public


def signature_breaks(ledger: Ledger) -> list[str]:
    """What is wrong with the signature, a sentence; nothing where it holds or was never made."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    path = signature_path(ledger)
    if not path.exists():
        return []
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))
        public, head = signed["public_key"], signed["head"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(base64.b64decode(signed["signature"]), bytes.fromhex(head))
    except (ValueError, KeyError, TypeError, InvalidSignature):
        return [f"the signature in {path} does not hold"]
    if key_path().exists() and _private_key(key_path()).public_key().public_bytes_raw().hex() != public:
        return [f"the ledger is signed with key {public[:16]}, which is not that of {key_path()}"]
    if _head(ledger, signed["lines"]) != head:
        return [f"the first {signed['lines']} lines of {ledger.path} are not those that were signed at {signed['at']}"]
    return []


def _head(ledger: Ledger, lines: int) -> str:
    """The SHA-256 over the first lines, each with its end."""
    digest = hashlib.sha256()
    for _, line in zip(range(lines), ledger.lines(), strict=False):
        digest.update(line + b"\n")
    return digest.hexdigest()


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    if path.exists():
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path} holds no Ed25519 key: name another file with {KEY_VARIABLE}, or remove it and a key is made")
        return key
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key
