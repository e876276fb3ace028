"""`trainlab run`: checks parameters, makes a run's folder, starts its worker and watches it.

The worker is a process of its own (trainlab.headless.worker). Whoever watches may leave at any time: a closed
terminal or a broken pipe ends the viewer alone, while Ctrl-C and SIGTERM are passed on to the worker.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trainlab import extras, files, literals, origin, paths, secrets, untrusted
from trainlab.errors import UserError
from trainlab.headless.finding import (
    SCRIPT,
    check_arguments,
    check_reads_arguments,
    experiments_of,
    find_module,
    find_program,
    is_function,
)
from trainlab.headless.parameters import (
    Parameters,
    given,
    notebook_defaults,
    resolve,
    resumed,
    resumed_by_defaults,
    settings_class,
)
from trainlab.headless.place import Place, Prepared, runner_lock
from trainlab.run import lock, naming, record, stopping
from trainlab.run.recorder import gone
from trainlab.run.resuming import check_experiment, referenced, starting_point, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from nbformat import NotebookNode

    from trainlab.config import Config

PASSED_ON = (signal.SIGINT, signal.SIGTERM)
PAUSE = 0.1  # seconds between two looks at the log
STATE_EVERY = 10.0  # seconds between two states of one progress bar, where they can't overwrite each other
# Escapes other than for colours, the end of a line and a line up; bells and the like; their forms in one byte
STEERING = re.compile(rb"\x1b(?!\[[0-9;]*[mKA])|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]")


def run(  # noqa: PLR0913
    reference: str,
    words: Iterable[str] = (),
    arguments: Sequence[str] = (),
    *,
    module: bool = False,
    name: str | None = None,
    seed: int | None = None,
    resume: str | None = None,
    detach: bool = False,
    place: Place | None = None,
) -> int:
    """Execute a notebook or a script headless, and record it as a run.

    Args:
        reference: A notebook or script: a path, or a name under `notebooks/`; a module's name, or
            `module:function`.
        words: Parameters, as `key=value`. A script gets each as an argument `--key=value`.
        arguments: A script's further arguments, as they are.
        module: Whether `reference` is the name of a module.
        name: Of the run; without it the parameters.
        seed: The parameter of this name.
        resume: The run to go on with, in its own folder; of a notebook also a word. A script gets its
            first arguments again.
        detach: Whether to return at once.
        place: Where it is recorded and executed, if not by this machine alone.

    Returns:
        The exit code, 0 only where every cell ran, or the script ended well.

    Raises:
        UserError: Before anything is made or changed, for a notebook, a script, a parameter, a value or a run
            to resume that cannot be; afterwards for a mistake of the user's that showed while it ran.
    """
    place = place or Place()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until somebody can act on them
    try:
        folder, held, arguments = prepared(
            reference, words, arguments, module=module, name=name, seed=seed, resume=resume, place=place
        )
        log = folder / place.log
        seen = log.stat().st_size if log.exists() else 0
        worker = start(folder, held, arguments, place)
        root = paths.root().resolve()  # whoever typed `make` is outside the container, perhaps
        of_make = stopping.MAKE in os.environ and folder.is_relative_to(root)
        print(folder.relative_to(root) if of_make else folder, flush=True)
        if detach:
            print(f"follow: {stopping.command('logs', folder.name)}")
            print(f"stop: {stopping.command('stop', folder.name)}")
            return 0
        code = tail_log(worker, log, seen)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if worker.poll() is not None:
        if not folder.is_dir():
            raise UserError(gone(folder))
        # a worker that was killed could not write it down; other hosts of its training may go on
        if record.read(folder).status == "running" and not lock.alive(folder):
            number = worker.returncode
            how = f"signal {-number}, {signal.Signals(-number).name}" if number < 0 else f"exit code {number}"
            record.write_end(folder, "failed", f"the runner died ({how})")
    if code == UserError.exit_code:
        raise UserError(str(record.read(folder).reason))
    return code


def prepared(  # noqa: PLR0913
    reference: str,
    words: Iterable[str] = (),
    arguments: Sequence[str] = (),
    *,
    module: bool = False,
    name: str | None = None,
    seed: int | None = None,
    resume: str | None = None,
    place: Place | None = None,
) -> tuple[Path, lock.Lock | None, Sequence[str]]:
    """Make a run ready for `start`: return its folder, its runner's lock, and the worker's arguments.

    Takes and raises what `run` does.
    """
    module, place = module or is_function(reference), place or Place()
    named = reference if module else ""
    path = find_module(reference) if module else find_program(reference)
    if path.suffix == SCRIPT:
        values = given(words, seed=seed)
        (folder, held), arguments = _script(path, named, values, arguments, name, resume, place)
    elif arguments:
        raise UserError(f"{path.name} is a notebook: it takes key=value, and no arguments behind `--`.")
    else:
        folder, held = _notebook(path, given(words, seed=seed, resume=resume), name, resume, place)
    return folder, held, place.arguments(folder, path, named, arguments)


def _script(  # noqa: PLR0913, PLR0917
    path: Path,
    module: str,
    values: Mapping[str, str],
    behind: Sequence[str],
    name: str | None,
    resume: str | None,
    place: Place,
) -> tuple[Prepared, list[str]]:
    """Make a script's run ready to start, anew or to go on; return its folder and lock, and its arguments."""
    arguments = [*(f"--{key}={value}" for key, value in values.items()), *behind]
    check_arguments(behind)
    source = path.read_text(errors="replace")
    if module and origin.is_installed(path):  # torch.distributed.run, say: the code is what it is to execute
        path = next((Path(word).resolve() for word in behind if Path(word).suffix == SCRIPT), path)
    config = {key: literals.read(value) for key, value in values.items()}
    known: dict[str, Any] = {"script": str(path), "module": module or None}
    experiments = experiments_of(re.split("[.:]", module)[-1] or path.stem, [source], config)
    if resume is None:
        if not is_function(module):
            check_reads_arguments(path, source, values)
        known |= {"arguments": arguments, "working_folder": str(Path.cwd())}
        return place.new(experiments[0], name or naming.of_changes(config), config, **known), arguments
    with _reopening(resume, experiments, name) as (folder, _, before):
        fields = before.model_dump()
        first, where = fields.get("arguments"), fields.get("working_folder")
        if not (isinstance(first, list) and all(isinstance(word, str) for word in [*first, where])):
            raise UserError(f"The run {folder.name} is none of a script that `trainlab run` executed.")
        if module:
            known["working_folder"] = str(Path.cwd())  # where it was found; a record must not choose the code
        elif not Path(str(where)).is_dir():
            raise UserError(f"The run began in {where}, which is no longer there: make it.")
        if arguments and secrets.hidden(record.plain(arguments)) != first:
            raise UserError(
                f"A resumed script gets its first arguments again: {' '.join(first) or 'none'}. Leave out "
                f"{' '.join(arguments)}, or start a new run (without --resume)."
            )
        if not arguments and any(secrets.HIDDEN in word for word in first):
            raise UserError(f"Say the arguments again, they hold a secret: {' '.join(first)}")
        held = runner_lock(folder)
        record.reopen(folder, sweep=place.sweep, **known)
    return (folder, held), arguments or first


def _notebook(
    path: Path, values: dict[str, str], name: str | None, resume: str | None, place: Place
) -> Prepared:
    """Make a notebook's run ready to start, anew or to go on; return its folder, and the runner's lock.

    A run that goes on has the settings of its `run.json`, and the values given. Without a settings class
    here, one in the notebook's cells says which must not change.
    """
    extras.need("ipykernel", f"The notebook {path.name}")
    from trainlab.headless import notebook  # nbformat takes 8 MiB and a moment, which a script need not pay

    nb = notebook.read(path)
    settings = settings_class(nb, path.parent)
    given_defaults = notebook_defaults(nb)
    defaults = given_defaults or {}
    experiments = experiments_of(path.stem, origin.sources(nb), defaults)
    reference = values.get("resume", "")
    if not (resume or (reference and (settings or _names_a_run(reference, experiments)))):
        try:
            parameters = resolve(settings, given_defaults, values)
        except UserError as error:
            if lost := paths.not_seen_here(values.values()):
                raise UserError(f"{error}{lost}") from None
            raise
        return prepare(path, nb, parameters, name, place)
    if "resume" not in (settings.model_fields if settings else defaults):
        raise UserError(
            f'{path.name} cannot go on with a run: it has no setting `resume`. Write resume = "" into its '
            "cell tagged 'parameters', and hand it on: trainlab.Run(..., resume=resume)."
        )
    del values["resume"]
    with _reopening(reference, experiments, name, settings) as (folder, file, before):
        if settings is not None:
            parameters = resumed(settings, values, before.config)
        else:
            parameters = resumed_by_defaults(defaults, values, before.config, notebook.filled_with(folder))
        with contextlib.redirect_stdout(io.StringIO()):  # the run itself prints the warnings, into the log
            starting_point(folder, file)
        held = runner_lock(folder)
        notebook.put_aside(folder)
        injected = parameters.injected | {"resume": str((file or folder).resolve())}
        notebook.write(folder, notebook.filled(nb, injected))
        record.reopen(folder, notebook=str(path), sweep=place.sweep)
    return folder, held


def prepare(
    path: Path, nb: NotebookNode, parameters: Parameters, name: str | None, place: Place | None = None
) -> Prepared:
    """Make the folder of a notebook's new run with its record and the notebook to execute."""
    from trainlab.headless import notebook

    filled = notebook.filled(nb, parameters.injected)
    experiment = experiments_of(path.stem, origin.sources(nb), parameters.config)[0]
    looks = (nb.metadata.get("trainlab") or {}).get("looks") is True or None
    name = name or naming.of_changes(parameters.injected)
    place = place or Place()
    made = place.new(experiment, name, parameters.config, notebook=str(path), looks=looks)
    place.keep(made[0], filled)
    return made


@contextlib.contextmanager
def _reopening(
    reference: str, experiments: Sequence[str], name: str | None, settings: type[Config] | None = None
) -> Iterator[tuple[Path, Path | None, record.Record]]:
    """Keep others out of a run that is made ready to go on; yield its folder, checkpoint and record.

    Raises:
        UserError: The run is running or another experiment's, or has its name already.
    """
    if name is not None:
        raise UserError(f"--name {name}: a resumed run has its name already. Leave --name out.")
    folder, file = _found(reference, experiments)
    check_experiment(folder, experiments, settings)
    run_lock = take(folder)  # the code's own run takes it next
    try:
        yield folder, file, record.read(folder)
    finally:
        run_lock.release()


def _found(reference: str, experiments: Sequence[str]) -> tuple[Path, Path | None]:
    """Return the run of these experiments that is meant, and its checkpoint where one is named."""
    errors = []
    for each in experiments:
        try:
            return referenced(reference, each)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _names_a_run(reference: str, experiments: Sequence[str]) -> bool:
    """Tell whether `resume=` means a run of ours: a notebook of one's own may mean something else by it."""
    try:
        _found(reference, experiments)
    except UserError:
        return reference == "last"
    return True


def start(
    folder: Path,
    held: lock.Lock | None,
    arguments: Sequence[str] = (),
    place: Place | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the worker of a prepared run, in a session that the terminal's end does not reach.

    The worker inherits the runner's lock, and keeps it to its end: the run counts as alive. `environment`
    comes to this process's own. Block PASSED_ON before: the worker lets them in once it can act on them.
    """
    place = place or Place()
    known = {key: value for key, value in os.environ.items() if key not in secrets.OF_SERVICES}
    with untrusted.appended(folder / place.log) as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", place.module, str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=known | dict(environment or {}),
            pass_fds=[held.fileno()] if held else [],
            start_new_session=True,
        )
    if held:
        held.release()
    return worker


class Screen:
    """Shows a log: all as it is in a terminal; elsewhere whole lines, and a bar's state now and then."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.in_terminal = out, out.isatty()
        self.line = b""  # not yet complete
        self.shown = time.monotonic()

    def write(self, data: bytes) -> None:
        """Show what is new."""
        if not self.in_terminal:
            *lines, self.line = (self.line + data).split(b"\n")
            lines = [_last_state(line) for line in lines]
            if b"\r" in self.line:
                self.line = b"\r" + _last_state(self.line)
                if data and time.monotonic() - self.shown > STATE_EVERY:
                    self.shown = time.monotonic()
                    lines.append(self.line[1:])
            data = b"".join(line + b"\n" for line in lines)
        if data:
            self.out.write(data)
            self.out.flush()

    def close(self) -> None:
        """Show an unfinished last line."""
        if self.line:
            self.out.write(_last_state(self.line) + b"\n")
            self.out.flush()


def tail_log(worker: subprocess.Popen[bytes], log: Path, seen: int = 0) -> int:
    """Show the log, less the bytes `seen`, until the worker ends; return its exit code as a shell counts it.

    Ctrl-C and SIGTERM go to the worker. Where nobody reads any more the viewer leaves, with SIGPIPE's code.
    """
    before = {each: signal.signal(each, lambda number, _: worker.send_signal(number)) for each in PASSED_ON}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        _tail(log, seen, lambda: worker.poll() is None)
    except OSError:  # a broken pipe, or a terminal that is gone
        files.mute_output()
        return 128 + signal.SIGPIPE
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return worker.returncode if worker.returncode >= 0 else 128 - worker.returncode


def show_log(log: Path, running: Callable[[], bool]) -> None:
    """Show a log, perhaps from elsewhere, less what steers a terminal; there also what a running run adds."""
    _tail(log, 0, lambda: sys.stdout.isatty() and running(), lambda text: STEERING.sub(b"?", text))


def _tail(log: Path, seen: int, growing: Callable[[], bool], shown: Callable[[bytes], bytes] = bytes) -> None:
    # not sys.stdout.buffer, which under PYTHONUNBUFFERED writes a part and forgets the rest
    with open(sys.stdout.fileno(), "wb", closefd=False) as out, log.open("rb") as file:
        file.seek(seen)
        screen, more = Screen(out), True
        while more:
            more = growing()  # before reading: nothing comes after its end
            screen.write(shown(file.read()))
            if more:
                time.sleep(PAUSE)
        screen.close()


def _last_state(line: bytes) -> bytes:
    """Return what a terminal shows of a line with carriage returns in it."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
