"""Prints what the service on SERVE_PORT serves, as soon as it is ready: ready.py [PID].

With PID, the service's or that of the init above it, the service is first told to read models/served anew,
and that load is waited for. Exits 2 with the service's reason where it refused what models/served names, 1
where it does not answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from typing import Any

PATIENCE = 120  # seconds for a load: millions of items take some
LARGEST = 1 << 16  # bytes of an answer


def asked() -> dict[str, Any]:
    """Return what the service says of itself, {} where it does not answer, or has nothing loaded yet."""
    address = f"http://127.0.0.1:{os.environ['SERVE_PORT']}/ready"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=10) as answer:
            return json.loads(answer.read(LARGEST))
    except (OSError, ValueError):
        return {}


def shown(text: object) -> str:
    """Return a text without what would steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in str(text))


def awaited(loads: int) -> dict[str, Any]:
    """Return what the service says of itself once it has finished so many loads; exit where it doesn't."""
    end = time.monotonic() + PATIENCE
    while (known := asked()).get("loads", 0) < loads:
        if time.monotonic() > end:
            sys.exit(f"error: no answer of the service within {PATIENCE} s; `make logs ARGS=serve` shows why")
        time.sleep(0.1)
    return known


def main() -> None:
    """Tell the service, wait for it, print what it says."""
    known = awaited(1)  # before its first it would end at the signal
    if sys.argv[1:]:
        os.kill(int(sys.argv[1]), signal.SIGHUP)
        known = awaited(known["loads"] + 1)
    if known["refused"]:
        print(f"error: {shown(known['refused'])}", file=sys.stderr)
        sys.exit(2)
    for kind, name in known["serving"].items():
        print(f"{shown(kind):<12} {shown(name)}")


if __name__ == "__main__":
    main()
