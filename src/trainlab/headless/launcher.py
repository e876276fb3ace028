"""`trainlab run`: checks a notebook's parameters, makes the run's folder, starts its worker and watches it.

The worker is a process of its own (trainlab.headless.worker). Whoever watches may leave at any time: a closed
terminal or a broken pipe ends the viewer alone, while Ctrl-C and SIGTERM are passed on to the worker.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import origin, paths, untrusted
from trainlab.errors import UserError, nearest
from trainlab.headless import notebook as document
from trainlab.headless import viewer
from trainlab.headless.parameters import (
    Parameters,
    given,
    notebook_defaults,
    resolve,
    resumed,
    resumed_by_defaults,
    settings_class,
)
from trainlab.run import lock, naming, record, stop
from trainlab.run import resume as resuming
from trainlab.run.recorder import gone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nbformat import NotebookNode

    from trainlab.config import Config

LOG = "output.log"
SCRIPT = ".py"


def run(  # noqa: PLR0913
    reference: str,
    words: Iterable[str] = (),
    *,
    name: str | None = None,
    seed: int | None = None,
    resume: str | None = None,
    detach: bool = False,
) -> int:
    """Execute a notebook headless with `key=value` words; return the exit code, 0 only where every cell ran.

    `resume`, an option or a word, names the run to go on with, in its own folder.
    Raises UserError, before anything is made or changed, for a notebook, a parameter, a value or a run to
    resume that cannot be, and afterwards for a mistake of the user's that showed in a cell.
    """
    path = find(reference)
    notebook = document.read(path)
    values = given(words, seed=seed, resume=resume)
    settings = settings_class(notebook, path.parent)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, viewer.PASSED_ON)  # until somebody can act on them
    try:
        if resume or (values.get("resume") and (settings or _names_a_run(values["resume"], path, notebook))):
            folder, held = reopen(path, notebook, settings, values, name)
        else:
            folder = prepare(path, notebook, _resolved(notebook, path.parent, values), name)
            held = _runner_lock(folder)
        seen = log_size(folder)
        worker = start(folder, held)
        if detach:
            print(_shown(folder))
            print(f"follow: {stop.command('logs', folder.name)}")
            print(f"stop: {stop.command('stop', folder.name)}")
            return 0
        print(_shown(folder), flush=True)
        code = viewer.follow(worker, folder / LOG, seen)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if worker.poll() is not None:
        _close_record(folder, worker.returncode)
    if code == UserError.exit_code:
        raise UserError(str(record.read(folder).reason))
    return code


def _shown(folder: Path) -> Path:
    """Return a run's folder as whoever started it finds it, outside the container perhaps."""
    root = paths.root().resolve()
    return folder.relative_to(root) if stop.MAKE in os.environ and folder.is_relative_to(root) else folder


def find(reference: str) -> Path:
    """Return the path of a notebook, given as a path or as a name under `notebooks/`, `.ipynb` or not.

    Raises UserError with the nearest name where there is none, and for a script.
    """
    for candidate in (Path(reference), paths.notebooks() / reference):
        for path in (candidate, candidate.with_name(f"{candidate.name}.ipynb")):
            if path.is_file() and path.suffix == SCRIPT:
                raise UserError(
                    f"{path} is a script, and `trainlab run` executes notebooks. Start it by Python: "
                    f"python {shlex.quote(str(path))}. It is recorded like a notebook where its loop "
                    f"stands in `with trainlab.Run({path.stem!r}, settings) as run:` (README.md, "
                    "'Add your own experiment')."
                )
            if path.is_file():
                return path.resolve()
    if lost := paths.not_seen_here([reference]):
        raise UserError(f"no notebook {reference!r}.{lost}")
    known = sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))
    raise UserError(
        f"no notebook {reference!r}, neither here nor in {paths.notebooks()}.{nearest(reference, known)}"
        f" There: {', '.join(known) or 'none'}."
    )


def prepare(path: Path, notebook: NotebookNode, parameters: Parameters, name: str | None) -> Path:
    """Make the run's folder with its record and the notebook to execute, and return it."""
    filled = document.filled(notebook, parameters.injected)
    experiment = origin.experiment(notebook, parameters.config) or path.stem
    folder = naming.new_folder(
        paths.logs().resolve(), experiment, name or naming.of_changes(parameters.injected)
    )
    record.create(
        folder,
        folder.parent.name,
        config=parameters.config,
        seed=_seed(parameters.config),
        notebook=str(path),
        looks=(notebook.metadata.get("trainlab") or {}).get("looks") is True or None,
    )
    document.write(folder, filled)
    return folder


def reopen(
    path: Path,
    notebook: NotebookNode,
    settings: type[Config] | None,
    values: dict[str, str],
    name: str | None,
) -> tuple[Path, lock.Lock]:
    """Make ready the folder of a run to go on with; return it, and the lock that keeps others out.

    Its settings are those of `run.json`, and the values given. Raises UserError, with nothing changed, for
    a notebook without the setting `resume`, a run that is at work or another experiment's, settings that must
    not change, or checkpoints that are all damaged. Without a settings class here, one in the notebook's
    cells says which must not.
    """
    defaults = notebook_defaults(notebook) or {}
    if "resume" not in (settings.model_fields if settings else defaults):
        raise UserError(
            f'{path.name} cannot go on with a run: it has no setting `resume`. Write resume = "" into its '
            "cell tagged 'parameters', and hand it on: trainlab.Run(..., resume=resume)."
        )
    if name is not None:
        raise UserError(f"--name {name}: a resumed run has its name already. Leave --name out.")
    values = dict(values)
    folder, file = _found(values.pop("resume"), path, notebook)
    resuming.check_experiment(folder, _experiments(path, notebook), settings)
    run_lock = resuming.take(folder)  # the notebook's run takes it next
    try:
        known = record.read(folder).config
        if settings is not None:
            parameters = resumed(settings, values, known)
        else:
            parameters = resumed_by_defaults(defaults, values, known, document.filled_with(folder))
        with contextlib.redirect_stdout(io.StringIO()):  # the run itself prints the warnings, into the log
            resuming.starting_point(folder, file)
        held = _runner_lock(folder)
        document.put_aside(folder)
        injected = parameters.injected | {"resume": str((file or folder).resolve())}
        document.write(folder, document.filled(notebook, injected))
        record.reopen(folder, notebook=str(path))
    finally:
        run_lock.release()
    return folder, held


def _resolved(notebook: NotebookNode, folder: Path, values: Mapping[str, str]) -> Parameters:
    """Resolve the parameters; where one names a path of the host's, an error says that it isn't seen here."""
    try:
        return resolve(notebook, folder, values)
    except UserError as error:
        if lost := paths.not_seen_here(values.values()):
            raise UserError(f"{error}{lost}") from None
        raise


def _experiments(path: Path, notebook: NotebookNode) -> list[str]:
    """Return the names that the notebook's runs lie under: what its cells say, and the file's."""
    said = origin.experiment(notebook, notebook_defaults(notebook) or {})
    return list(dict.fromkeys(filter(None, [said, path.stem])))


def _found(reference: str, path: Path, notebook: NotebookNode) -> tuple[Path, Path | None]:
    """Return the run of this notebook that is meant, and its checkpoint where one is named."""
    first, *others = _experiments(path, notebook)
    try:
        return resuming.find(reference, first)
    except UserError:
        for each in others:
            with contextlib.suppress(UserError):
                return resuming.find(reference, each)
        raise


def _names_a_run(reference: str, path: Path, notebook: NotebookNode) -> bool:
    """Tell whether `resume=` means a run of ours: a notebook of one's own may mean something else by it."""
    try:
        _found(reference, path, notebook)
    except UserError:
        return reference == "last"
    return True


def log_size(folder: Path) -> int:
    """Return how many bytes of output the run has so far: none where it is new."""
    try:
        return (folder / LOG).stat().st_size
    except FileNotFoundError:
        return 0


def start(folder: Path, held: lock.Lock) -> subprocess.Popen[bytes]:
    """Start the worker of a prepared run, in a session that the terminal's end does not reach.

    The worker inherits the runner's lock, and keeps it to its end: the run counts as alive.
    """
    with untrusted.appended(folder / LOG) as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "trainlab.headless.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in os.environ.items() if key != "JUPYTER_TOKEN"},
            pass_fds=[held.fileno()],
            start_new_session=True,
        )
    held.release()
    return worker


def _runner_lock(folder: Path) -> lock.Lock:
    held = lock.hold(folder, lock.RUNNER)
    assert held is not None, "a folder made a moment ago, or whose other lock we have, has no other holder"
    return held


def _seed(config: dict[str, Any]) -> int | None:
    seed = config.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _close_record(folder: Path, code: int) -> None:
    """Write down what a worker that was killed could not write; raise UserError where the folder is gone."""
    if not folder.is_dir():
        raise UserError(gone(folder))
    if record.read(folder).status == "running":
        how = f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        record.end(folder, "failed", f"the runner died ({how})")
