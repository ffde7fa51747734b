"""Asking a service of this machine over HTTP, past the environment's proxies, which know no loopback of ours."""

from __future__ import annotations

import urllib.request
from typing import Any


def open_url(request: str | urllib.request.Request, seconds: float) -> Any:
    """The response to a request, to be closed by the caller. Raises what ``urllib.request.urlopen`` raises."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds)
