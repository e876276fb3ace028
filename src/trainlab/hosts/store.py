"""The store at which the hosts of a training meet: a process of its own, `trainlab store`.

It holds a few kilobytes, and nothing that is worth keeping: started again, empty, it serves as well.
"""

from __future__ import annotations

import signal
import socket
from datetime import timedelta

import psutil

from trainlab import network
from trainlab.errors import UserError
from trainlab.hosts.rendezvous import NO_PASSWORD, Endpoint

WILDCARDS = ("0.0.0.0", "::", "")
BACKLOG = 128


def check(address: str) -> None:
    """Raise UserError for an address by which the internet reaches this host."""
    shown = [address]
    if address in WILDCARDS:
        shown = [
            each.address.partition("%")[0]
            for known in psutil.net_if_addrs().values()
            for each in known
            if each.family in (socket.AF_INET, socket.AF_INET6)
        ]
    if public := [each for each in shown if network.is_public(each)]:
        raise UserError(
            f"--address {address}: this host has {public[0]}, an address of the internet, and {NO_PASSWORD}. "
            "Give an address of a private network or a VPN: trainlab store --address 192.168.1.2"
        )


def serve(address: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; print where, once it does.

    Raises UserError for an address that is public or not this host's, and for a port that is taken.
    """
    try:
        family, *_, place = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # the latter: of a name that can be nobody's, such as a..b
        raise UserError(f"--address {address}: {getattr(error, 'strerror', None) or error}.") from None
    check(str(place[0]))
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
    except OSError as error:
        raise UserError(
            f"The store can't listen at {Endpoint(address, port)}: {error.strerror}. Give an address of this "
            "host, and a port that is free: trainlab store --address ADDRESS --port PORT"
        ) from None
    listening.listen(BACKLOG)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # before torch's threads begin
    from torch.distributed import TCPStore

    # by itself it would listen at all of this host's addresses
    store = TCPStore(
        address,
        listening.getsockname()[1],
        is_master=True,
        timeout=timedelta(seconds=30),
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    print(f"store: {Endpoint(address, store.port)}", flush=True)
    print(f"on each host: trainlab run WHAT --nodes 1:2 --join {Endpoint(address, store.port)} --name NAME")
    signal.sigwait((signal.SIGTERM, signal.SIGINT))
