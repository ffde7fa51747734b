"""Who may do what: the role each path asks for, keys, rates, and the headers that every answer carries."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import math
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_assets.serving.errors import SECURITY, error_response
from llm_assets.serving.keys import VOTES, Key, Keyring, KeysError, Role
from llm_assets.serving.routes import site

logger = logging.getLogger(__name__)

OPEN = frozenset({*site.FILES, "/healthz", "/readyz"})
ASK_PATHS = frozenset({"/v1/classify", "/v1/explain", "/v1/chat/completions", "/v1/completions", "/v1/models", "/openapi.json"})
FEEDBACK_PATHS = frozenset({"/v1/feedback"})
ANONYMOUS = Key("anonymous", "", ("ask", "feedback"), None, VOTES)
LOCAL = Key("anonymous", "", ("ask", "feedback", "operate"), None, VOTES)

HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]


def role_of(path: str) -> Role | None:
    """The role that a path asks for, None where it is open; a path that nobody thought of is the operator's."""
    if path in OPEN:
        return None
    if path in ASK_PATHS:
        return "ask"
    return "feedback" if path in FEEDBACK_PATHS else "operate"


def client_of(scope: Scope) -> Key:
    """The client that asks, as ``Access`` found it."""
    key: Key = scope["llm_assets.client"]
    return key


class Access:
    """ASGI middleware. With keys, one of the path's role is needed; without, operating is for clients of this machine alone.

    A key comes as ``Authorization: Bearer KEY``, or as the password of ``Basic``, which browsers can ask for. A request to a
    loopback address counts as this machine's only under a name of this machine: a page elsewhere whose name was made to
    resolve to 127.0.0.1 (DNS rebinding) is refused.
    """

    def __init__(self, app: ASGIApp, home: Path) -> None:
        self._app, self._keyring = app, Keyring(home)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its client, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(message["headers"])
            await send(message)

        try:
            refusal = self._refusal(scope)
        except (KeysError, OSError) as error:
            logger.error("%s", error)
            refusal = error_response(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway cannot read its keys; its log says why")
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Any:
        role = role_of(scope["path"])
        if role is None:
            scope["llm_assets.client"] = ANONYMOUS
            return None
        headers = dict(scope["headers"])
        if self._keyring.keys() is None:
            return self._admit(scope, LOCAL if _is_local(scope, headers) else ANONYMOUS, role)
        value = _presented(headers.get(b"authorization", b"").decode("latin-1"))
        key = self._keyring.find(value) if value else None
        if key is None:
            said = "this key is unknown" if value else "a key is needed: send Authorization: Bearer KEY; `llm-assets keys add` makes one"
            return error_response(HTTPStatus.UNAUTHORIZED, said, headers={"WWW-Authenticate": 'Bearer, Basic realm="llm_assets"'})
        if seconds := self._keyring.wait(key):
            said = f"the key {key.name} may ask {key.per_minute} times a minute: come again later"
            return error_response(HTTPStatus.TOO_MANY_REQUESTS, said, headers={"Retry-After": str(math.ceil(seconds))})
        return self._admit(scope, key, role)

    def _admit(self, scope: Scope, client: Key, role: Role) -> Any:
        if role not in client.roles:
            if client.sha256:
                said = f"the key {client.name} has not the role {role}, which {scope['path']} asks for: have one made that has it"
            else:
                said = f"{scope['path']} is for this machine alone: ask there or through a tunnel, or make keys there with `llm-assets keys add`"
            return error_response(HTTPStatus.FORBIDDEN, said)
        scope["llm_assets.client"] = client
        return None


def _complete(headers: list[tuple[bytes, bytes]]) -> None:
    """Add the security headers that an answer does not bring itself."""
    if len(headers) < 4 and not any(name in (b"content-security-policy", b"cache-control") for name, _ in headers):
        headers.extend(HEADERS)  # the usual answer has a length and a type
        return
    present = MutableHeaders(raw=headers)
    for name, value in SECURITY.items():
        present.setdefault(name, value)


def _presented(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _is_local(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    client = scope.get("client")
    host = headers.get(b"host", b"").decode("latin-1")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return client is not None and is_loopback(client[0]) and (name == "localhost" or is_loopback(name.strip("[]")))


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a name is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a test client or a Unix socket has a name instead
        return False
