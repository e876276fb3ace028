"""What `trainlab doctor` says of sweeps and of the head that keeps them; nothing where there are none."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from trainlab import extras, network
from trainlab.cli.finding import Line
from trainlab.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Queue, Trial

BEAT = 10.0  # seconds between two beats of a trial (sweeps.loop)
PATIENCE = 1.5  # beats that are waited for
GLANCE = 0.5  # seconds between two looks


def examine(logs: Path) -> Iterator[Line]:
    """Yield what there is to say of the sweeps in a folder of runs, and of the heads that keep them."""
    sweeps = _sweeps(logs)
    if not sweeps:
        return
    try:
        extras.need("optuna", "A sweep")
    except UserError as error:
        yield Line("sweeps", "warning", f"{len(sweeps)} in {logs} can't be looked at", str(error))
        return
    lines = {at: head(at, logs) if at else local(logs) for at in sorted({each.at or "" for each in sweeps})}
    yield from lines.values()
    yield from trials([each for each in sweeps if lines[each.at or ""].level == "ok"], logs)


def _sweeps(logs: Path) -> list[Definition]:
    from trainlab.sweeps import definition

    found = []
    for path in sorted((logs / definition.SWEEPS).glob(f"[!.]*/{definition.FILE}")):
        try:
            found.append(definition.load(path.parent.name, logs))
        except UserError:  # `trainlab sweep list` names it
            continue
    return found


def listening(port: str, who: str) -> Iterator[Line]:
    """Say to whom a head on this machine listens at a port: as the kernel says, whatever the settings are."""
    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return
    listens: list[Any] = [each.laddr for each in found if each.status == psutil.CONN_LISTEN]
    addresses = {each.ip for each in listens if str(each.port) == port}
    if addresses & {"0.0.0.0", "::"}:
        addresses |= {each.address for cards in psutil.net_if_addrs().values() for each in cards}
    public = sorted(filter(_is_public, addresses))
    subject = f"port {port}"
    if public:
        fix = "HEAD_ADDRESS=127.0.0.1, or an address of a network of your own, in .env; then make head"
        yield Line(subject, "error", f"{who} listens to the internet: {some(public)}", fix)
    elif addresses:
        yield Line(subject, "ok", f"{who} listens, to no address of the internet")


def _is_public(address: str) -> bool:
    try:
        return network.is_public(address)
    except ValueError:  # of hardware
        return False


def head(at: str, logs: Path) -> Line:
    """Ask a head whether it answers, keeps every text, and whether its sweeps are those of this `logs/`."""
    from trainlab.sweeps import database, storage

    try:
        subject = database.shown(at)
        connection = database.server_options(at)["creator"]()
        encoding = connection.execute("show server_encoding").fetchone()[0]
        connection.close()
        if encoding != "UTF8":
            fix = "make it anew: initdb -E UTF8, as make head does"
            return Line(subject, "error", f"its encoding is {encoding}, and not every text fits", fix)
        kept = {name: said for name, said in storage.kept(at).items() if said}
    except UserError as error:
        return Line(
            f"head {at}", "error", str(error), "make head, and HEAD_PASSWORD of its .env in the environment"
        )
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "make head there; the password of its .env in the environment: TRAINLAB_HEAD_PASSWORD"
        return Line(subject, "error", f"it does not answer: {first}", fix)
    seen = storage.seen(kept, logs)
    if kept and not seen:
        fix = "mount the logs/ of the machine that began them"
        return Line(
            subject, "error", f"{logs} holds none of its sweeps ({some(sorted(kept))}): another logs/", fix
        )
    return Line(subject, "ok", f"UTF-8; {len(seen)} of its {len(kept)} sweeps lie in {logs}")


def local(logs: Path) -> Line:
    """See whether sweeps without a head lie on a disk whose locks hold."""
    from trainlab.sweeps import database

    try:
        database.check_place(logs)
    except UserError as error:
        return Line("sweeps", "error", str(error), "a head keeps them: docs/hosts.md")
    return Line("sweeps", "ok", f"{logs} is on a disk of this machine")


def trials(sweeps: list[Definition], logs: Path) -> Iterator[Line]:
    """Watch the trials that run for a beat: who shows none, and whether locks of other hosts are seen."""
    from trainlab.sweeps.queue import Queue

    watched: list[tuple[Queue, Trial]] = []
    for each in sweeps:
        try:
            queue = Queue.open(each, logs=logs)
            watched += [(queue, trial) for trial in queue.running()]
        except UserError as error:
            yield Line(f"sweep {each.name}", "warning", str(error), f"trainlab sweep rebuild {each.name}")
    if not watched:
        return
    silent, moved = _watch(watched)
    for queue, trial in silent:
        host = trial.owner.host if trial.owner else "nobody"
        found = (
            f"trial {trial.number} has shown no sign of life for {PATIENCE * BEAT:.0f} s; its host is {host}"
        )
        fix = "who works on it takes it over after a minute: trainlab worker, or trainlab sweep --resume"
        yield Line(f"sweep {queue.definition.name}", "warning", found, fix)
    others = [
        (queue, trial) for queue, trial in moved if trial.owner and trial.owner.host != socket.gethostname()
    ]
    yield from locks(others, logs)


def _watch(watched: list[tuple[Queue, Trial]]) -> tuple[list[tuple[Queue, Trial]], list[tuple[Queue, Trial]]]:
    """Return the trials that show no beat, and those that do."""
    silent, moved = watched, []
    deadline = time.monotonic() + PATIENCE * BEAT
    while silent and time.monotonic() < deadline:
        time.sleep(GLANCE)
        now = {
            (id(queue), each.number): each
            for queue in {id(queue): queue for queue, _ in silent}.values()
            for each in queue.running()
        }
        still = []
        for queue, before in silent:
            after = now.get((id(queue), before.number))
            if after is not None and (after.beat, after.owner) == (before.beat, before.owner):
                still.append((queue, before))
            elif after is not None:
                moved.append((queue, after))
        silent = still
    return silent, moved


def locks(others: list[tuple[Queue, Trial]], logs: Path) -> Iterator[Line]:
    """See whether a run that another host executes looks taken from here, as it must."""
    from trainlab.run import lock

    runs = [logs / trial.runs[-1] for _, trial in others if trial.runs]
    runs = [each for each in runs if os.access(each, os.R_OK)]
    if not runs:
        return
    free = [each.name for each in runs if not lock.alive(each)]
    if free:
        fix = "a file system with locks for all hosts: NFS 4, or NFS 3 with its lock daemon"
        yield Line("locks", "warning", f"{some(free)}: another host executes it, and it looks free here", fix)
    else:
        yield Line("locks", "ok", f"those of other hosts are seen here ({len(runs)})")
