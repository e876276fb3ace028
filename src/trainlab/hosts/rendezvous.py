"""Where hosts meet: the address of the store, how many of them there may be, and by which network they speak.

The store is torch's TCPStore, which asks nobody who they are: whoever reaches it can end a training, or take
part in it and read its weights. So it must be out of reach from the internet.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from trainlab import network
from trainlab.errors import UserError

PORT = 29400  # torchrun's own
ANSWERS_WITHIN = 5.0  # seconds for the store to take a connection
NODES = re.compile(r"(?P<least>[1-9]\d{0,3})(:(?P<most>[1-9]\d{0,3}))?")
_ENDPOINT = re.compile(r"(\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(:(?P<port>\d{1,5}))?")
NO_PASSWORD = "the store has no password, and whoever reaches it can end or join the training"
# What torch's agents are told of it. Found with hosts that were killed, cut off and brought back:
CONFIG = {
    "is_host": "0",  # no training host may hold the store: with it all the others would be lost
    "join_timeout": "600",  # seconds to wait for enough hosts
    "last_call_timeout": "5",  # seconds for more of them, once there are enough
    "read_timeout": "15",  # seconds until a store that is gone is noticed
}
# For the agents, before they import torch. Else it puts the processes' own store into the first host's agent,
# where it outlives that host's rank; and a host that is cut off prints a trace for each packet it can't send
ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
RESTARTS = 100  # how often processes are started again, each time a host was lost


@dataclass(frozen=True)
class Endpoint:
    """The store's address as it was given, and the port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def nodes(text: str) -> tuple[int, int]:
    """Return the least and the most hosts of '2' or '1:2'; raise UserError for anything else."""
    found = NODES.fullmatch(text.strip())
    least, most = (int(found["least"]), int(found["most"] or found["least"])) if found else (1, 0)
    if least > most:
        raise UserError(
            f"--nodes {text}: expected how many hosts train, such as 2, or the least and the most of them, "
            "such as 1:2."
        )
    return least, most


def endpoint(text: str) -> Endpoint:
    """Return the store's address, given as HOST or HOST:PORT.

    Raises UserError for what is none, for a name that nobody knows, and for a public address.
    """
    found = _ENDPOINT.fullmatch(text.strip())
    port = int((found and found["port"]) or PORT)
    if not found or not 0 < port < 1 << 16:
        raise UserError(
            f"--join {text}: expected the store's host, or HOST:PORT; the port is {PORT} elsewhere."
        )
    place = Endpoint(found["v6"] or found["host"], port)
    try:
        known = network.addresses(place.host, port)
    except (OSError, UnicodeError) as error:  # the latter: of a name that can be nobody's, such as a..b
        said = getattr(error, "strerror", None) or error
        raise UserError(
            f"--join {text}: no host {place.host!r} is known here ({said}). Give its "
            "address, or write its name into /etc/hosts."
        ) from None
    if public := sorted(filter(network.is_public, known)):
        raise UserError(
            f"--join {text}: {public[0]} is an address of the internet, and {NO_PASSWORD}. Join by an "
            "address of a private network or a VPN, such as 192.168.1.2 or 10.0.0.2."
        )
    return place


def answers(place: Endpoint) -> bool:
    """Tell whether somebody takes a connection there."""
    try:
        socket.create_connection((place.host, place.port), ANSWERS_WITHIN).close()
    except OSError:
        return False
    return True


def addresses(place: Endpoint) -> set[str]:
    """Return the addresses of a store's host, none where its name is not known here now."""
    with suppress(OSError):
        return network.addresses(place.host, place.port)
    return set()


def hang_up(known: set[str], port: int) -> None:
    """End this process's connections to a port of some addresses, whoever reads from them."""
    for each in psutil.Process().net_connections("tcp"):
        if each.raddr and each.raddr.port == port and each.raddr.ip.removeprefix("::ffff:") in known:
            with suppress(OSError), socket.socket(fileno=os.dup(each.fd)) as found:
                found.shutdown(socket.SHUT_RDWR)


def check(place: Endpoint) -> None:
    """Raise UserError where there is no store at an address."""
    if not answers(place):
        port = "" if place.port == PORT else f" --port {place.port}"
        raise UserError(
            f"No store answers at {place}. On a host that stays up, best one that trains nothing, start it: "
            f"trainlab store --address {place.host}{port}"
        )


def own_address(place: Endpoint) -> str:
    """Return this host's address on the network that leads to the store; nothing is sent for it."""
    family, kind, *_, to = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as asked:
        asked.connect(to)
        return str(asked.getsockname()[0])


def interface(address: str) -> str | None:
    """Return the name of the network interface that has an address."""
    for name, known in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in known):
            return name
    return None


def networks(place: Endpoint) -> dict[str, str]:
    """Return by which network gloo and NCCL are to speak with other hosts; what the user has set stays.

    They would look up this host's name, and may find the loopback interface, which no other host reaches.
    Asked for each process anew: a network that was cut off may come back by another name.
    """
    name = None
    with suppress(OSError):  # cut off
        name = interface(own_address(place))
    known = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} if name else {}
    return {key: os.environ.get(key, value) for key, value in known.items()}


def launch_options(place: Endpoint, least: int, most: int, devices: int) -> dict[str, Any]:
    """Return the fields of torch's LaunchConfig, but for the name of the rendezvous."""
    return {
        "min_nodes": least,
        "max_nodes": most,
        "nproc_per_node": devices,
        "rdzv_backend": "c10d",
        "rdzv_endpoint": str(place),
        "rdzv_configs": dict(CONFIG),
        "local_addr": own_address(place),
        "max_restarts": RESTARTS,
        "signals_to_handle": "SIGTERM,SIGINT",
    }
