"""The server itself: `python -m trainlab.serving.server`.

SIGHUP lets it read `models/served` anew, SIGTERM ends it once every request is answered that it has accepted.
So does the end of the terminal that it was started in, unless by `nohup`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from trainlab.errors import UserError
from trainlab.web.binding import port_of

HOST, PORT = "127.0.0.1", 8000
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # one each: requests are the threads
FILES = 4096  # descriptors, where the system lets us have them

log = logging.getLogger("trainlab.serving")


def main() -> None:
    """Serve until SIGTERM; what can't be served ends with a sentence and code 2."""
    parser = argparse.ArgumentParser(prog="python -m trainlab.serving.server", description=__doc__)
    parser.add_argument("--host", default=HOST, help=f"default: {HOST}")
    parser.add_argument("--port", help=f"default: SERVE_PORT, or {PORT}")
    options = parser.parse_args()
    for name in THREADS:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is none
    try:
        serve(options.host, port_of(options.port, "SERVE_PORT", PORT))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except UserError as error:
        sys.exit(_told(error))
    except ModuleNotFoundError as error:
        from trainlab import extras

        found = extras.explained(error, "The server")
        if not isinstance(found, UserError):
            raise
        sys.exit(_told(found))


def serve(host: str, port: int) -> None:
    """Load what is chosen, then serve it, until a signal ends it.

    Raises UserError where the port is taken, or a bundle is refused.
    """
    from anyio.to_thread import current_default_thread_limiter

    from trainlab import system
    from trainlab.serving import page
    from trainlab.serving.app import application
    from trainlab.serving.counts import Counts
    from trainlab.serving.engine import Engine
    from trainlab.serving.reloading import ReloadingServer, has_terminal
    from trainlab.web.binding import bound
    from trainlab.web.limits import Limits

    _more_files()
    terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and has_terminal()
    early: list[int] = []  # signals that come before the server listens to them
    signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    engine = Engine()
    with bound(host, port) as sock:
        engine.load()
        counts = Counts(engine)
        limits = Limits(
            application(engine, counts),
            counts,
            page.refused,
            os.environ.get("SERVE_TOKEN", "").strip(),
            [host],
        )
        server = ReloadingServer(limits, engine, early, terminal)

        async def answer() -> None:
            current_default_thread_limiter().total_tokens = max(1, int(system.cpus()))
            for kind, name in engine.now.names.items():
                log.info("%s: %s", kind, name)
            shown = f"[{host}]" if ":" in host else host
            log.info("serving at http://%s:%d", shown, sock.getsockname()[1])
            await server.serve([sock])

        def end(*_: Any) -> None:  # uvicorn has its own, and calls this one once more when it has ended
            server.should_exit = True

        signal.signal(signal.SIGTERM, end)
        with suppress(KeyboardInterrupt):  # which uvicorn raises again, too
            asyncio.run(answer())
        if server.loading:
            logging.shutdown()
            os._exit(0)  # an end in order would tear down libraries that the load is in the midst of


def _more_files() -> None:
    """Let many clients be connected at once: some systems give a process a thousand descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _told(error: UserError) -> int:
    from trainlab.cleaning import lines
    from trainlab.secrets import without_secrets

    print(f"error: {lines(without_secrets(str(error)))}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    main()
