"""The address that a server listens at."""

from __future__ import annotations

import errno
import os
import socket

from trainlab.errors import UserError

BACKLOG = 128  # connections that may come before a server answers


def port_of(told: str | None, variable: str, usual: int) -> int:
    """Return the port to serve at: the one told, that of an environment variable, or the usual one.

    Raises UserError for what is no port.
    """
    source, text = ("--port", told) if told is not None else (variable, os.environ.get(variable, ""))
    if not (text or "").strip():
        return usual
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise UserError(f"{source}={text}: expected the number of a port, 1 to 65535.")
    return int(text)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; raise UserError where there can't be one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host {host}: {error.strerror}. Expected an address of this machine.") from None
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)  # whoever comes during the load is answered after it; no second server comes
    except OSError as error:
        sock.close()
        ways_out = {
            errno.EADDRINUSE: f"Is a server running there already? Another port: --port {port % 65535 + 1}",
            errno.EADDRNOTAVAIL: "--host takes an address of this machine.",
            errno.EACCES: "Ports below 1024 are the system's. Another port: --port 8000",
        }
        raise UserError(
            f"{host}:{port}: {error.strerror}. {ways_out.get(error.errno or 0, '')}".strip()
        ) from None
    return sock
