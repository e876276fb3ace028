"""`trainlab run`: checks a notebook's parameters, makes the run's folder, starts its worker and watches it.

The worker is a process of its own (trainlab.runs.worker). Whoever watches may leave at any time: a closed
terminal or a broken pipe ends the viewer alone, while Ctrl-C and SIGTERM are passed on to the worker.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import folders
from trainlab.config import assignments
from trainlab.errors import UserError, nearest
from trainlab.runs import document, lock, naming, record, viewer
from trainlab.runs.parameters import Parameters, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbformat import NotebookNode

LOG = "output.log"


def run(
    reference: str,
    words: Iterable[str] = (),
    *,
    name: str | None = None,
    seed: int | None = None,
    detach: bool = False,
) -> int:
    """Execute a notebook headless with `key=value` words; return the exit code, 0 only where every cell ran.

    Raises UserError, before anything is made, for a notebook, a parameter or a value that cannot be, and
    afterwards for a mistake of the user's that showed in a cell.
    """
    path = find(reference)
    notebook = document.read(path)
    parameters = resolve(notebook, path.parent, assignments(words), seed)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, viewer.PASSED_ON)  # until somebody can act on them
    try:
        folder = prepare(path, notebook, parameters, name)
        worker = start(folder)
        if detach:
            print(f"{folder}\nfollow: tail -f {shlex.quote(str(folder / LOG))}\nstop: kill {worker.pid}")
            return 0
        print(folder, flush=True)
        code = viewer.follow(worker, folder / LOG)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if worker.poll() is not None:
        _close_record(folder, worker.returncode)
    if code == UserError.exit_code:
        raise UserError(str(record.read(folder).reason))
    return code


def find(reference: str) -> Path:
    """Return the path of a notebook, given as a path or as a name under `notebooks/`, `.ipynb` or not.

    Raises UserError with the nearest name where there is none.
    """
    for candidate in (Path(reference), folders.notebooks() / reference):
        for path in (candidate, candidate.with_name(f"{candidate.name}.ipynb")):
            if path.is_file():
                return path.resolve()
    known = sorted(path.stem for path in folders.notebooks().glob("*.ipynb"))
    raise UserError(
        f"no notebook {reference!r}, neither here nor in {folders.notebooks()}.{nearest(reference, known)}"
        f" There: {', '.join(known) or 'none'}."
    )


def prepare(path: Path, notebook: NotebookNode, parameters: Parameters, name: str | None) -> Path:
    """Make the run's folder with its record and the notebook to execute, and return it."""
    filled = document.filled(document.without_outputs(notebook), parameters.injected)
    folder = naming.new_folder(
        folders.logs().resolve(), path.stem, name or naming.of_changes(parameters.injected)
    )
    record.create(
        folder,
        folder.parent.name,
        config=parameters.config,
        seed=_seed(parameters.config),
        notebook=str(path),
    )
    document.write(folder, filled)
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the worker of a prepared run, in a session that the terminal's end does not reach.

    The run counts as alive from here on: the worker inherits the lock, and keeps it to its end.
    """
    held = lock.hold(folder, lock.RUNNER)
    assert held is not None, "a folder made a moment ago has no other holder"
    with (folder / LOG).open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "trainlab.runs.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in os.environ.items() if key != "JUPYTER_TOKEN"},
            pass_fds=[held.fileno()],
            start_new_session=True,
        )
    held.release()
    return worker


def _seed(config: dict[str, Any]) -> int | None:
    seed = config.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _close_record(folder: Path, code: int) -> None:
    """Write down what a worker that was killed could not write."""
    if record.read(folder).status == "running":
        how = f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        record.end(folder, "failed", f"the runner died ({how})")
