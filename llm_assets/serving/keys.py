"""API keys: who may ask, vote and operate, and how often.

A key is 256 random bits, of which ``<home>/serving/keys.json`` holds the SHA-256. A slow hash such as scrypt protects what
people choose, since that can be guessed; nobody guesses 256 bits, and a slow hash would only slow every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock

from llm_assets.store.files import write_atomic
from llm_assets.store.journal import now

Role = Literal["ask", "feedback", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
PREFIX = "lla_"  # so that scanners for leaked secrets know one
RELOAD = 1.0  # seconds after which a change of the file counts
VOTES = 1000  # feedback a client and UTC day, unless its key says otherwise


class KeysError(ValueError):
    """Keys cannot be read, or one cannot be made or removed as asked."""


@dataclass(frozen=True)
class Key:
    """One client's key."""

    name: str
    sha256: str
    roles: tuple[Role, ...]
    per_minute: int | None = None  # requests, None: no limit
    votes_per_day: int = VOTES
    made: str = ""


def keys_path(home: Path) -> Path:
    """Where a data root's keys stand, readable by their owner alone."""
    return home / "serving" / "keys.json"


def read_keys(home: Path) -> list[Key] | None:
    """The keys, or None where there is no file: then no key is asked for. Raises ``KeysError`` naming a damaged file."""
    path = keys_path(home)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        return [Key(**{**entry, "roles": tuple(entry["roles"])}) for entry in entries]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise KeysError(f"{path} holds no keys ({error}): restore it, or delete it and make new keys") from error


def add_key(home: Path, name: str, roles: Sequence[Role], per_minute: int | None = None, votes_per_day: int = VOTES) -> str:
    """Make a key and return it; it is not stored and cannot be shown again. Raises ``KeysError`` for a name that is taken or unfit."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or name == "anonymous":
        raise KeysError(f"{name!r} is no name for a key: letters, digits, . _ - and at most 64 of them, and not anonymous")
    if unknown := sorted(set(roles) - set(ROLES)):
        raise KeysError(f"no role {', '.join(unknown)}: the roles are {', '.join(ROLES)}")
    if not roles:
        raise KeysError(f"a key without a role opens nothing: give --role, one of {', '.join(ROLES)}, once or more")
    with _lock(home):
        keys = read_keys(home) or []
        if any(key.name == name for key in keys):
            raise KeysError(f"there is a key {name} already: remove it first, or choose another name")
        value = PREFIX + secrets.token_urlsafe(32)
        _write(home, [*keys, Key(name, _hash(value), tuple(dict.fromkeys(roles)), per_minute, votes_per_day, now())])
    return value


def remove_key(home: Path, name: str) -> int:
    """Take a key back, and say how many are left; a running gateway notices within a second. Raises ``KeysError`` for an unknown name."""
    with _lock(home):
        keys = read_keys(home) or []
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise KeysError(f"no key {name}; the keys: {', '.join(key.name for key in keys) or 'none'}")
        _write(home, left)
    return len(left)


class Keyring:
    """The keys as the file has them now, and what each has left of its rate."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._keys: list[Key] | None = None
        self._stamp: tuple[int, int] | None = None
        self._looked = -RELOAD
        self._buckets: dict[str, Bucket] = {}

    def keys(self) -> list[Key] | None:
        """The keys, or None where no key is asked for. Raises ``KeysError`` for a damaged file, which opens nothing."""
        moment = time.monotonic()
        if moment - self._looked >= RELOAD:
            stamp = _stamp(keys_path(self._home))
            if stamp != self._stamp or stamp is None:
                self._keys = read_keys(self._home)
                self._stamp = stamp
            self._looked = moment
        return self._keys

    def find(self, value: str) -> Key | None:
        """The key with this value. All are compared, each in a time that does not depend on where they differ."""
        presented, found = _hash(value), None
        for key in self.keys() or ():
            if hmac.compare_digest(key.sha256, presented):
                found = key
        return found

    def wait(self, key: Key) -> float:
        """0 where the key may ask now, which counts as asking; else the seconds until it may."""
        if key.per_minute is None:
            return 0.0
        bucket = self._buckets.get(key.name)
        if bucket is None or bucket.capacity != key.per_minute:
            bucket = self._buckets[key.name] = Bucket(key.per_minute)
        return bucket.take(time.monotonic())


class Bucket:
    """A token bucket: ``capacity`` at once, and as many again in each minute."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._left, self._at = float(capacity), time.monotonic()

    def take(self, moment: float) -> float:
        """Take one and return 0, or take none and return the seconds until there is one."""
        rate = self.capacity / 60
        self._left = min(float(self.capacity), self._left + (moment - self._at) * rate)
        self._at = moment
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / rate


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def _lock(home: Path) -> FileLock:
    path = keys_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def _write(home: Path, keys: Sequence[Key]) -> None:
    content = {"keys": [asdict(key) for key in keys]}
    write_atomic(keys_path(home), json.dumps(content, indent=2) + "\n")  # by way of a temporary file, which has mode 600
