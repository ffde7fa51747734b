"""Taking a port, or saying who has it."""

from __future__ import annotations

import errno
import socket


class PortError(RuntimeError):
    """A port cannot be listened on."""


def bind(host: str, port: int, wanted_by: str, remedy: str) -> socket.socket:
    """A socket bound to ``host:port`` (0: any free port). Raises ``PortError`` naming the port, who wanted and who holds it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left may be taken again at once
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        reason = f"is in use{_holder(port)}" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be had ({error})"
        raise PortError(f"{wanted_by}: port {port} on {host} {reason}; {remedy}") from error
    return taken


def _holder(port: int) -> str:
    """`` by process 12 (python -m http.server)``, or nothing where the system does not tell."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by process {process.pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    except psutil.Error:
        pass
    return ""
