"""Why a run died that could not say so itself: the kernel ends a process for memory without a word to it."""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import system

if TYPE_CHECKING:
    from trainlab.run.record import Record

UNKNOWN = "the process ended and left no reason (killed, exit 137, or a power failure)"
GIB = 1 << 30
FIRST_TO_GO = 500  # of -1000 (never) to 1000: before whatever watches over the run, which has 0
OF_JUPYTERLAB = (
    600  # of the server (jupyter_server_config.py) and of all that is started in it: before a training
)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SCORE = Path("/proc/self/oom_score_adj")


def marks() -> dict[str, Any]:
    """Return what a run writes down at its start, for `cause` to compare with."""
    return {"oom_kills": system.oom_kills(), "home": home()}


def home() -> str:
    """Return what tells this boot of the kernel, this container and its control group from all others."""
    parts = [_BOOT, system.OWN]
    texts = [socket.gethostname(), *(path.read_text() for path in parts if path.exists())]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def cause(known: Record) -> str:
    """Return why a run died, as far as can be told from here: out of memory, or anything else.

    The kernel counts the processes of a control group that it has killed for memory. Only whoever asks from
    the same container, while that lives, can compare.
    """
    now = system.oom_kills()
    if known.home != home() or known.oom_kills is None or now is None or now <= known.oom_kills:
        return UNKNOWN
    limit = system.memory_limit()
    return f"out of memory (limit {limit / GIB:.1f} GiB)" if limit else "out of memory"


def go_first() -> None:
    """Let the kernel end this process for memory before what watches over it, but JupyterLab sooner still.

    Any process may raise its own score, and lower it again. In a container /proc may be read-only.
    """
    _score(FIRST_TO_GO)


def outlive() -> None:
    """Let this process, which watches over a run, outlive it even if JupyterLab's terminal started it."""
    _score(0)


def _score(wanted: int) -> None:
    """Set the score, but for one that somebody has set higher on purpose."""
    with suppress(OSError, ValueError):
        now = int(_SCORE.read_text())
        if now < wanted or now == OF_JUPYTERLAB:
            _SCORE.write_text(str(wanted))
