"""A worker on a node of a Ray cluster: `Place` is the actor that holds it, the rest a process of its own.

Whatever ends an actor, Ray kills its process at once, and the children with it. So the worker is nobody's
child, and hangs by a pipe: once the actor is gone, it lets its runs save checkpoints, gives their trials back
and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from typing import IO

STOP, KILL = b"s", b"k"  # what the worker is told by its pipe
RESTARTS = 100  # of a worker that dies without a word
AGAIN = 5.0  # seconds before another one is started


@dataclass(frozen=True)
class Task:
    """What a worker is to do: `worker.join` and `slots.find` say what each is.

    `at` holds no password: that one the node's own environment has.
    """

    at: str
    name: str  # the sweep's
    logs: str
    slots: int  # trials at a time; more than one share a GPU
    gpu: bool  # whether Ray gives it one
    cpus: int  # that Ray counts as its own


class Place:
    """A Ray actor's object: `work` takes long, and the others are called meanwhile, in threads of theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: IO[bytes] | None = None
        self._stopped = False

    def begun(self) -> str:
        """Return the node's name, once there is a node with room for this place."""
        return socket.gethostname()

    def work(self, task: Task) -> tuple[int, str]:
        """Hold a worker until it ends; return its exit code, and what was wrong."""
        said, known = "", None
        for _ in range(RESTARTS):
            with self._lock:
                if self._stopped:
                    return 128 + signal.SIGTERM, ""
                worker = subprocess.Popen(
                    [sys.executable, "-m", __name__, json.dumps(asdict(task))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._pipe = worker.stdin
            assert worker.stdout is not None, "a pipe"
            for line in worker.stdout:
                text = line.decode(errors="replace").strip()
                if (told := _told(text)) is not None:
                    known = told
                else:
                    said = text or said
            worker.communicate()
            if known is not None:
                code, error = known
                return code, error or (said if code else "")
            if not self._stopped:
                time.sleep(AGAIN)
        return 1, f"its worker has died {RESTARTS} times; its last words: {said}"

    def stop(self, kill: bool) -> None:
        """Let runs save checkpoints and end, or kill them; again, it changes nothing."""
        with self._lock:
            self._stopped = True
            if self._pipe is not None:
                with suppress(OSError, ValueError):  # it has ended
                    self._pipe.write(KILL if kill else STOP)
                    self._pipe.flush()


def _told(line: str) -> tuple[int, str] | None:
    """Return the code and the error of the line that `main` ends with, None for any other."""
    with suppress(ValueError, TypeError, KeyError):
        known = json.loads(line)
        return int(known["code"]), str(known["error"])
    return None


def main(task: Task) -> None:
    """Be a worker until no trial is left, or the pipe says otherwise; print how that ended."""
    from trainlab.sweeps import slots, worker

    if os.fork():
        os._exit(0)  # the child that Ray knows of
    threading.Thread(target=_listen, daemon=True).start()
    try:
        # whoever else computes on a GPU that Ray gives us is about to end: a worker before us, say
        found = slots.find(task.slots, gpus=task.gpu, per_gpu=task.slots, wait=True, cpus=task.cpus)
        if task.gpu and not found.all[0].gpu:
            raise UserError("Ray counts a GPU here, and the driver shows none.")
        code = worker.join(task.at, slots=found, names=[task.name], until_empty=True, logs=Path(task.logs))
        known = {"code": code, "error": ""}
    except UserError as error:
        known = {"code": UserError.exit_code, "error": str(error)}
    except Exception as error:  # again it would be the same
        traceback.print_exc()
        known = {"code": 1, "error": f"{type(error).__name__}: {error}"}
    with suppress(OSError):  # nobody may be there to read it
        print(json.dumps(known), flush=True)


def _listen() -> None:
    """Take the actor's words for signals, and its end for a stop."""
    stopping = False
    while True:
        word = os.read(0, 1)
        if word == KILL or not stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        stopping = True
        if not word:
            return


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
