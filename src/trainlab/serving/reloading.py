"""A server that loads anew at SIGHUP, and takes the end of its terminal for its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.web.connections import Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from trainlab.serving.engine import Engine
    from trainlab.web.limits import Limits

log = logging.getLogger("trainlab.serving")


class ReloadingServer(Server):
    """One that loads at SIGHUP.

    Args:
        limits: What is served.
        engine: What loads anew at SIGHUP.
        early: Signals that came before it listened to them itself.
        terminal: Whether to end at a SIGHUP by which the terminal of the start is gone.

    Attributes:
        loading: Whether a load is under way.
    """

    def __init__(
        self, limits: Limits, engine: Engine, early: Sequence[int] = (), terminal: bool = False
    ) -> None:
        self._engine, self._terminal = engine, terminal
        self._early, self._asked, self.loading = early, threading.Event(), False
        super().__init__(limits)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen to clients, and to SIGHUP."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        if self._early:
            self._asked.set()
        # a daemon: a load may take a minute, and nothing waits for it at the end
        threading.Thread(target=self._load_at_hangup, daemon=True).start()

    def _load_at_hangup(self) -> None:
        """Load what is chosen at each SIGHUP; end where that means that the terminal is gone."""
        while self._asked.wait():
            self._asked.clear()
            if self._terminal and not has_terminal():
                self.should_exit = True
                return
            self.loading = True
            try:
                self._engine.load()
            except UserError as error:
                log.error("refused, and what was served is served on: %s", error)
            except Exception:
                log.exception("not loaded, and what was served is served on")
            else:
                log.info("loaded: %s", ", ".join(self._engine.now.names.values()))
            finally:
                self.loading = False


def has_terminal() -> bool:
    """Say whether this process has a terminal, whose end SIGHUP may tell."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
