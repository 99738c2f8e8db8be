"""The socket on which clients come, bound before anything is opened behind it."""

import socket

from fulcrum_mcp.errors import Unavailable

__all__ = ["listen", "shown"]

_WAITING = 2048
"""Connections that wait to be taken."""


def listen(host: str, port: int) -> socket.socket:
    """Raises `Unavailable` when the address is taken or is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        msg = f"{host}:{port}: cannot listen there ({exc.strerror}); name another with --http HOST:PORT"
        raise Unavailable(msg) from exc
    listener.listen(_WAITING)
    listener.setblocking(False)
    return listener


def shown(listener: socket.socket) -> str:
    """Where a client on this machine finds it: `host:port`."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - listening there was the operator's wish
        host = "::1" if ":" in host else "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
