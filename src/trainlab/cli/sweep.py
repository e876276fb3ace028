"""`trainlab sweep`: many settings of one program, and what became of them; `trainlab worker` helps along."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer.core

from trainlab import extras
from trainlab.cleaning import printable
from trainlab.cli import leading
from trainlab.cli.options import Logs, WithArguments
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainlab.sweeps.cluster import Cluster
    from trainlab.sweeps.order import Order
    from trainlab.sweeps.slots import Slots

START = "(start)"  # the command that any first word means but those of the group: no notebook is called so

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a sweep; all: trainlab sweep list")]
Count = Annotated[int | None, typer.Option("--slots", help="Trials at a time; default: one a GPU, or one.")]
PerGpu = Annotated[int, typer.Option("--per-gpu", help="Trials that share one GPU, without a wall between.")]
Wait = Annotated[bool, typer.Option("--wait-for-gpu", help="Wait for GPUs that somebody else uses.")]
Gpus = Annotated[
    Literal["all", "none"] | None, typer.Option(help="Run trials on GPUs alone, or on none; default: if any.")
]


class _Sweep(typer.core.TyperGroup):
    """A group whose first word may also be a notebook: then it is what `start` is told."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the hidden command before what isn't one's."""
        if not args or args[0] not in self.commands:
            args = [START, *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Leave the hidden command's name out of what is printed."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == START else name, command, rest


app = typer.Typer(cls=_Sweep, help="Try many settings of a notebook or script; trials are ordinary runs.")


@app.command(START, cls=WithArguments, hidden=True, options_metavar="")
def start(  # noqa: PLR0913, PLR0917
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NOTEBOOK|SCRIPT|MODULE:FUNCTION|FILE.toml [KEY=VALUES]... [-- ARGUMENT...]"),
    ] = None,
    goal: Annotated[str | None, typer.Option(help="The metric that decides, such as val/loss.")] = None,
    mode: Annotated[Literal["min", "max"] | None, typer.Option(help="Which of it is better.")] = None,
    method: Annotated[
        Literal["grid", "tpe", "random"] | None, typer.Option(help="Lists alone: grid; with ranges: tpe.")
    ] = None,
    trials: Annotated[
        str | None, typer.Option(metavar="N", help="How many; with --resume +N, so many more.")
    ] = None,
    prune: Annotated[
        Literal["none", "median", "hyperband", "patience"] | None, typer.Option(help="End poor trials early.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each setting; their mean decides.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is drawn, and of the first run.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the sweep; default: the program and the time.")] = None,
    module: Annotated[bool, typer.Option("-m", help="It is a module's name, as for `python -m`.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Go on with this sweep.")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Resume it though its program has changed.")
    ] = False,
    slots: Count = None,
    per_gpu: PerGpu = 1,
    gpus: Gpus = None,
    wait_for_gpu: Wait = False,
    at: Annotated[
        str | None, typer.Option(metavar="HEAD", help="The head that keeps it (docs/hosts.md).")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run trials on a Ray cluster (docs/hosts.md).")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start it and return at once.")] = False,
    logs: Logs = None,
) -> None:
    r"""Try many settings of a notebook or script, and say which is best by a metric.

    KEY=1,3,5 is a list, KEY=1..9 and KEY=1e-5..1e-3:log and KEY=1..9:2 are ranges, KEY=VALUE is the same for
    all, and '\,' is a comma of a value. All about it: docs/sweeps.md

    Also: trainlab sweep list | show NAME | stop NAME | rebuild NAME
    """
    from trainlab.sweeps import order as orders
    from trainlab.sweeps.board import read_or_not
    from trainlab.sweeps.definition import create, load
    from trainlab.sweeps.resuming import resumed

    extras.need("optuna", "A sweep")
    said = {"goal": goal, "mode": mode, "method": method, "prune": prune, "seeds": seeds, "seed": seed}
    options = {key: each for key, each in said.items() if each is not None}
    if ray is None:
        found: Slots | Cluster = _found(slots, per_gpu, gpus, wait_for_gpu)
    else:
        if resume and not load(resume, logs).at:
            raise UserError(
                f"--ray: no head keeps {resume}, and the nodes of a cluster need one: start a new sweep with "
                "--at HEAD"
            )
        found = _cluster(ray, bool(at or resume), slots, per_gpu, gpus, wait_for_gpu)
    if resume is None:
        if anyway:
            raise UserError("--anyway: it resumes a sweep whose program has changed. Leave it out.")
        order = _ordered(words or [], module).told(
            (words or [])[1:], options | _number(trials), arguments=ctx.obj, name=name, at=at
        )
        try:
            definition, remarks = orders.define(order, logs)
        except KeyboardInterrupt:
            print("stopped while the space was checked: nothing was made", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None
        create(definition, logs)
    else:
        if ctx.obj:
            raise UserError(f"-- {shlex.join(ctx.obj)}: the sweep has its arguments. Leave these out.")
        if name is not None:
            raise UserError(f"--name {name}: a sweep that goes on has its name already. Leave --name out.")
        order = _known(words or [], module).told([each for each in words or [] if "=" in each], options)
        definition, remarks = resumed(
            resume, order, more=_more(trials), agreed=_agreed(anyway), at=at, logs=logs
        )
    for each in remarks:
        print(printable(each), file=sys.stderr)
    with read_or_not():
        leading.announce(definition, found)
    if not detach:
        raise typer.Exit(leading.lead(definition, found, at, logs))
    again = ["--resume", definition.name, "--anyway", "--per-gpu", str(per_gpu)]
    again += ["--slots", str(slots)] if slots is not None else []
    again += ["--gpus", gpus] if gpus is not None else []
    again += ["--wait-for-gpu"] if wait_for_gpu else []
    again += ["--at", at] if at is not None else []
    again += ["--ray", ray] if ray is not None else []
    again += ["--logs", str(logs)] if logs is not None else []
    leading.detached(definition, again, logs)


@app.command("list")
def list_sweeps(
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",
    logs: Logs = None,
) -> None:
    """List the sweeps under logs/, the newest first."""
    from trainlab import paths
    from trainlab.sweeps import listing

    extras.need("optuna", "A sweep")
    sweeps = listing.found(logs)
    if format == "json":
        sys.stdout.write(listing.as_json(sweeps))
    elif sweeps:
        print(listing.listing(sweeps))
    else:
        print(f"No sweeps in {logs or paths.logs()} yet: docs/sweeps.md", file=sys.stderr)


@app.command()
def show(
    name: Name,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="How to print it.")] = "table",
    importance: Annotated[
        bool, typer.Option("--importance", help="Weigh the settings too, which takes some seconds.")
    ] = False,
    logs: Logs = None,
) -> None:
    """Show a sweep: its trials, the best five, and what follows from them."""
    from trainlab.sweeps import display
    from trainlab.sweeps.definition import load

    definition = load(name, logs)
    trials = leading.opened(definition, None, logs).trials()
    if format == "json":
        sys.stdout.write(display.as_json(definition, trials))
    elif format == "csv":
        sys.stdout.write(display.as_csv(definition, trials))
    else:
        curves = leading.Curves(definition, logs)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(f"{display.show(definition, trials, curves, width, logs)}\n")
        leading.print_summary(definition, trials, logs, importance)


@app.command()
def stop(name: Name, logs: Logs = None) -> None:
    """Stop a sweep that is led here: its runs save checkpoints, and their trials wait again."""
    from trainlab.sweeps import stopping
    from trainlab.sweeps.definition import load
    from trainlab.sweeps.display import counts

    definition = load(name, logs)
    stopping.stop(name, logs)
    print(f"{name}: {counts(leading.opened(definition, None, logs).trials())}")
    print(f"go on: {leading.typed('--resume', name)}")


@app.command()
def rebuild(name: Name, logs: Logs = None) -> None:
    """Make a sweep's database anew from the records of its runs, where it is lost or damaged."""
    from trainlab.sweeps import owners, queue
    from trainlab.sweeps.definition import led, load
    from trainlab.sweeps.display import counts
    from trainlab.sweeps.faults import QueueError

    definition = load(name, logs)
    held = led(name, logs)
    if held is None:
        raise UserError(f"The sweep {name} goes on just now. Stop it first: {leading.typed('stop', name)}")
    try:
        with suppress(QueueError):  # what is to be made anew may not be readable
            running = leading.opened(definition, None, logs).running()
            owners.refuse_living(running, one_machine=definition.at is None)
        print(f"{name}: {counts(queue.rebuild(definition, logs).trials())}")
    finally:
        held.release()
    print(f"go on: {leading.typed('--resume', name)}")


def worker(  # noqa: PLR0913, PLR0917
    names: Annotated[list[str] | None, typer.Argument(metavar="[SWEEP]...", help="Default: all.")] = None,
    join: Annotated[
        str | None, typer.Option("--join", metavar="HEAD", help="The head that keeps them; default: logs/.")
    ] = None,
    slots: Count = None,
    per_gpu: PerGpu = 1,
    gpus: Gpus = None,
    wait_for_gpu: Wait = False,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when no trial is left.")] = False,
    logs: Logs = None,
) -> None:
    """Take trials of sweeps that are led elsewhere, and run them here."""
    from trainlab.sweeps import worker as loop

    extras.need("optuna", "A sweep")
    found = _found(slots, per_gpu, gpus, wait_for_gpu)
    print(leading.places(found), flush=True)
    names = names or []
    raise typer.Exit(loop.join(join, slots=found, names=names, until_empty=until_empty, logs=logs))


def _found(count: int | None, per_gpu: int, gpus: str | None, wait: bool) -> Slots:
    """Return where trials run here."""
    from trainlab.sweeps import slots

    found = slots.find(count, gpus=gpus != "none", per_gpu=per_gpu, wait=wait)
    if gpus == "all" and not found.all[0].gpu:
        raise UserError("--gpus all: no GPU is seen here. Leave it out to compute on the CPUs.")
    return found


def _cluster(  # noqa: PLR0913, PLR0917
    address: str, kept: bool, count: int | None, per_gpu: int, gpus: str | None, wait: bool
) -> Cluster:
    """Return where trials run on a Ray cluster; `kept` says whether a head keeps the sweep."""
    from trainlab.sweeps import cluster

    if not kept:
        raise UserError(
            "--ray: the nodes of a cluster need a head that keeps the sweep for all of them: make head, then "
            "--at HEAD"
        )
    if wait:
        raise UserError("--wait-for-gpu: Ray gives its workers GPUs that are free. Leave it out.")
    return cluster.find(address, count, gpus=None if gpus is None else gpus == "all", per_gpu=per_gpu)


def _ordered(words: Sequence[str], module: bool) -> Order:
    """Return the order that the first word begins: a file, or a program."""
    from trainlab.headless import finding
    from trainlab.sweeps import order as orders

    first = words[0] if words else ""
    if not first or "=" in first:
        raise UserError(
            "Train what? Name a notebook or a script first: trainlab sweep news temperature=0.1,0.2 ..."
        )
    if first.endswith(".toml"):
        return orders.from_file(Path(first))
    return orders.Order(first, module=module or finding.is_function(first))


def _known(words: Sequence[str], module: bool) -> Order:
    """Return what the words before the settings say of a sweep that goes on."""
    from trainlab.sweeps import order as orders

    named = [each for each in words if "=" not in each]
    if len(named) == 1 and named[0].endswith(".toml"):
        order = orders.from_file(Path(named[0]))
        return replace(order, options={key: each for key, each in order.options.items() if key != "trials"})
    return orders.Order(" ".join(named), module=module)


def _number(trials: str | None) -> dict[str, int]:
    if trials is None:
        return {}
    if not trials.isdecimal():
        raise UserError(f"--trials {trials}: expected a whole number. (+20 is for a sweep that goes on.)")
    return {"trials": int(trials)}


def _more(trials: str | None) -> int:
    """Return how many trials more a sweep that goes on is to have."""
    if trials is None:
        return 0
    if not re.fullmatch(r"\+\d{1,9}", trials):
        raise UserError(f"--trials {trials}: say how many more the sweep is to have, such as --trials +20.")
    return int(trials)


def _agreed(anyway: bool) -> Callable[[str], None]:
    """Return what asks whether a sweep may go on though something speaks against it."""

    def ask(what: str) -> None:
        if anyway:
            return
        if not sys.stdin.isatty():
            raise UserError(f"{what} If it does: --anyway. Else start a new sweep.")
        typer.confirm(f"{what} Go on?", abort=True)

    return ask
