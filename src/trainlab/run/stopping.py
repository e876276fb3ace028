"""Stopping a running run, and what is printed then: what was saved, and how to go on."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from trainlab import paths
from trainlab.cleaning import lines
from trainlab.errors import UserError, without_traceback
from trainlab.run import checkpoint, grace, lock, record
from trainlab.run.signals import PATIENCE

# set where `make` hands a command on, to a container or not: what to type is make's, too
MAKE = "TRAINLAB_MAKE"
QUIET = "TRAINLAB_QUIET"  # where it is set, no run says where it lies
BY_HAND = "stopped by hand"  # the reason of a sweep's trial that `trainlab stop` has ended
GLANCE = 0.1  # seconds between two looks
REPORTED_AFTER = 5.0  # seconds of waiting, until it is printed what for
MARGIN = 20.0  # seconds for a process to end, beside all that it may have to finish


def command(verb: str, run: str) -> str:
    """Return what to type to `stop` a run, or to see its `logs`, from where this command was typed."""
    return (
        f"make {verb} RUN={shlex.quote(run)}" if MAKE in os.environ else f"trainlab {verb} {shlex.quote(run)}"
    )


def page(label: str) -> str:
    """Return the address of TensorBoard's page of one run, 'experiment/run'."""
    below = f"?runFilter={quote(label.replace('+', '.'))}#timeseries"
    if name := os.environ.get("SHARE"):  # a shared stack: with Docker no other address leads there
        at = f":{os.environ.get('SHARE_PORT') or 443}"
        return f"https://{name}{'' if at == ':443' else at}/tensorboard/{below}"
    port = os.environ.get("TENSORBOARD_PORT")
    if not port:
        with suppress(OSError):  # not the local engine's, or another user's
            port = (paths.root() / ".stack" / "tensorboard.port").read_text().strip()
    port = port or "6006"
    if port == "off":  # reached through JupyterLab's login alone; the token is in no address that is kept
        port = f"{os.environ.get('JUPYTER_PORT', '8888')}/tensorboard"
    return f"http://127.0.0.1:{port}/{below}"


def announce(folder: Path) -> None:
    """Say where a run lies, and its page in TensorBoard; a worker process keeps silent."""
    workers = [os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", QUIET)]
    if multiprocessing.parent_process() or any(value not in ("", "0") for value in workers):
        return
    text = f"run: {folder}"
    if folder.parents[1].resolve() == paths.logs().resolve():
        text += f"\ncurves: {page(f'{folder.parent.name}/{folder.name}')}"
    with suppress(OSError, ValueError):  # nobody may be there to read it
        print(lines(text), file=sys.stderr, flush=True)


def outcome(folder: Path) -> str:
    """Return what a run that was stopped has saved, and what to type to go on with it, here."""
    known: dict[str, Any] = {}
    with suppress(record.RecordError):
        known = record.read(folder).model_dump()
    states = checkpoint.full_states(folder)
    if not states and not known.get("script"):
        return "no checkpoint was saved."
    saved = "no checkpoint was saved by trainlab; the script's own files are in the run's folder"
    if states:
        step = checkpoint.step_of(states[0])
        saved = f"saved as {states[0].name}" if step is None else f"saved at step {step}"
    if not (program := known.get("notebook") or known.get("script")):
        return f'{saved}. Resume it with resume="{folder.name}"'
    path = Path(str(program))
    is_known = path.suffix == ".ipynb" and path.parent == paths.notebooks().resolve()
    words = ["-m", str(known["module"])] if known.get("module") else [path.stem if is_known else str(path)]
    typed = shlex.join([*words, "--resume", folder.name])
    typed = f'make run ARGS="{typed}"' if MAKE in os.environ else f"trainlab run {typed}"
    return f"{saved}. Resume it: {typed}"


def report(folder: Path, error: BaseException, reason: str | None) -> None:
    """Say, in place of the exception's traceback, what a run has saved that somebody has just stopped."""
    by = "Ctrl-C" if reason == "KeyboardInterrupt" else reason
    with suppress(OSError, ValueError):  # nobody may be there to read it
        print(f"interrupted by {by}: {outcome(folder)}", flush=True)
    without_traceback(error, silent=True)


def stop(folder: Path) -> str:
    """End a run as `kill` does: it saves a checkpoint first. Wait until it has ended; return how it did.

    A notebook's kernel is interrupted, as by Jupyter's stop button, and lives on. Raises UserError for a run
    that is not running, whose process is out of reach, or that does not end.
    """
    if not lock.alive(folder):
        raise UserError(f"The run {folder.name} is not running. All that are: trainlab runs --status running")
    number = next(lock.holders(folder), None)
    if number is None:
        where = "in another container or as another user's process"
        with suppress(record.RecordError):
            known = record.read(folder)
            where = f"process {known.pid} on {known.host or 'another host'}, {where}"
        raise UserError(f"The run {folder.name} is running, but not here: {where}. Stop it there.")
    tell_why(folder, BY_HAND)
    kernel = False
    with suppress(psutil.Error):  # it may have ended meanwhile
        kernel = "ipykernel_launcher" in " ".join(psutil.Process(number).cmdline())
    if signalled(folder, number, signal.SIGINT if kernel else signal.SIGTERM):
        _wait(folder, number, kernel)
    try:
        status = record.read(folder).status
    except record.RecordError as error:
        return str(error)
    if status == "finished":
        return f"{folder.name}: finished before it was stopped."
    return f"{folder.name}: {'interrupted' if status == 'running' else status}, {outcome(folder)}"


def tell_why(folder: Path, why: str) -> None:
    """Write into the record of a sweep's trial why it is asked to end, before the signal is sent.

    Whoever leads the sweep can be another process by the time that the run has ended.
    """
    with suppress(record.RecordError):
        sweep = record.read(folder).sweep
        if sweep is not None:
            record.update(folder, sweep=sweep.model_copy(update={"stopped": why}))


def _wait(folder: Path, process: int, kernel: bool) -> None:
    """Wait until a run has ended, and say what for; raise UserError where it does not."""
    deadline = grace.Deadline(folder, PATIENCE + MARGIN + grace.for_step(folder))
    reported = time.monotonic() + REPORTED_AFTER
    while lock.alive(folder):
        if deadline.over() and kernel:
            raise UserError(
                f"The cell that trained {folder.name} was interrupted, and its notebook holds the run still. "
                "There: run.finish(), or restart the kernel."
            )
        if deadline.over():
            raise UserError(f"The run {folder.name} does not end. Without saving anything: kill -9 {process}")
        if time.monotonic() > reported:
            reported = float("inf")
            saving = grace.saving(folder)
            what = "a checkpoint is being written" if saving else "the current step is finished first"
            print(f"{what} ...", file=sys.stderr, flush=True)
        time.sleep(GLANCE)


def runs_of(process: int) -> list[Path]:
    """Return the folders of the runs that a process logs to."""
    try:
        files = [Path(each.path) for each in psutil.Process(process).open_files()]
    except psutil.Error:
        return []
    return [path.parent for path in files if path.name == lock.RUN]


def signalled(folder: Path, number: int, what: signal.Signals) -> bool:
    """Send a signal to a process if it still holds a run's lock: its number may be another's by now."""
    with suppress(psutil.Error):
        process = psutil.Process(number)  # signals no other one of this number
        if number in lock.holders(folder):
            process.send_signal(what)
            return True
    return False
