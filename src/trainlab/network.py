"""Hosts and their addresses, as this machine knows them: of a training's store, a Ray cluster, a head."""

from __future__ import annotations

import ipaddress
import socket


def addresses(host: str, port: int) -> set[str]:
    """Return the addresses of a host, by TCP.

    Raises:
        OSError: Nobody knows its name here.
        UnicodeError: It can be nobody's name, such as a..b.
    """
    return {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}


def is_public(address: str) -> bool:
    """Tell whether an address is one of the internet's; raise ValueError for what is none."""
    return ipaddress.ip_address(address.partition("%")[0]).is_global
