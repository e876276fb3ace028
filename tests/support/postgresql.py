"""A PostgreSQL of one's own: Debian's, in a temporary folder, on a port of the loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from waiting import until

USER, PASSWORD = "trainlab", "correct-horse-battery"
NOBODY = 65534  # PostgreSQL refuses to be root's


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Server:
    """A server that can be ended and started again."""

    def __init__(self, port: int, encoding: str = "UTF8") -> None:
        """Make and start one.

        Args:
            port: One of `free_port`: what the system gives to anybody is somebody else's while this is down.
            encoding: Of its database.
        """
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="trainlab-postgresql-"))
        self._as = []
        if os.getuid() == 0:
            shutil.chown(self.folder, NOBODY, NOBODY)
            self._as = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self.port = port
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        made = ["--encoding", encoding, "--locale=C", "-U", USER, "--auth=scram-sha-256", "--no-sync"]
        self._call("initdb", "-D", self._data, *made, f"--pwfile={secret}")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, USER)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def at(self) -> str:
        """The address of the server."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        words = ["-D", self._data, "-F", "-c", f"unix_socket_directories={self.folder}"]
        words += ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port)]
        words = [*self._as, str(self._programs / "postgres"), *words]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd="/")
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL answers")

    def stop(self) -> None:
        """End at once, as a restart of a machine does."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def remove(self) -> None:
        """End, and delete everything."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def _call(self, program: str, *words: str) -> None:
        subprocess.run(
            [*self._as, str(self._programs / program), *words],
            check=True, capture_output=True, text=True, cwd="/", env={**os.environ, "PGPASSWORD": PASSWORD},
        )  # fmt: skip
