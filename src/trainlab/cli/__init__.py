"""The command `trainlab`. What costs seconds to import is imported by the command that needs it."""

from __future__ import annotations

import json
import signal
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trainlab
from trainlab import experiments, extras
from trainlab.cleaning import lines, printable
from trainlab.cli import board, data, lab, models, runs, serve, sweep
from trainlab.cli.options import Logs, Reference, WithArguments, row
from trainlab.errors import UserError
from trainlab.secrets import without_secrets

if TYPE_CHECKING:
    from trainlab.checks.harness import Finding
    from trainlab.cli.doctor import Line

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, data and all
    help="An experiment stack for deep learning: run notebooks, compare their runs.",
)
app.add_typer(runs.app, name="runs")
app.add_typer(sweep.app, name="sweep")
app.command()(sweep.worker)
app.add_typer(data.app, name="data")
app.command()(lab.new)
app.command()(lab.update)
app.command()(models.export_model)
app.command()(models.check_model)
app.command()(serve.serve)
app.command()(board.board)
for _name in experiments.with_file("commands.py"):
    try:
        app.add_typer(experiments.load(_name, "commands").app)
    except Exception as error:  # whatever it is, all other commands have to go on working
        print(f"warning: the commands of the experiment {_name} can't be read: {error}", file=sys.stderr)

COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


class Format(StrEnum):
    """What findings are printed as."""

    text = "text"
    json = "json"


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"trainlab {trainlab.__version__}")
        raise typer.Exit


@app.command(cls=WithArguments)
def run(  # noqa: PLR0913, PLR0917
    ctx: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="NOTEBOOK|SCRIPT", help="A name under notebooks/, a path, or module:function."
        ),
    ],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]... [-- ARGUMENT...]")] = None,
    module: Annotated[bool, typer.Option("-m", help="It is a module's name, as for `python -m`.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the parameters.")] = None,
    seed: Annotated[int | None, typer.Option(help="Set the parameter `seed`.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Resume this run: its name, a path, or 'last'.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start it and return at once.")] = False,
    nodes: Annotated[
        str | None, typer.Option(metavar="N|MIN:MAX", help="Train on so many hosts: this line on each.")
    ] = None,
    join: Annotated[
        str | None, typer.Option(metavar="HEAD", help="Where they meet: the host of `trainlab store`.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --nodes: processes here; default: the setting `devices`.")
    ] = None,
) -> None:
    """Execute a notebook or any Python script headless, and record it as a run.

    A script gets KEY=VALUE as --KEY=VALUE, and its own options behind `--` as they are.
    """
    from trainlab.headless import launcher

    words = parameters or []
    options: dict[str, Any] = {"module": module, "name": name, "seed": seed, "detach": detach}
    if nodes is None and join is None and devices is None:
        raise typer.Exit(launcher.run(program, words, ctx.obj, resume=resume, **options))
    from trainlab.hosts import starting

    extras.need("torch", "trainlab run --nodes")
    if resume is not None:
        raise UserError(
            "--resume: hosts go on with the run of their --name by themselves. Leave --resume out."
        )
    raise typer.Exit(
        starting.run(program, words, ctx.obj, nodes=nodes, join=join, devices=devices, **options)
    )


@app.command()
def store(
    address: Annotated[str, typer.Option(help="Of this host, on the hosts' private network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 29400,
) -> None:
    """Serve the store at which the hosts of a training meet (`run --nodes --join`), until Ctrl-C."""
    from trainlab.hosts import store as service

    extras.need("torch", "trainlab store")
    service.serve(address, port)


@app.command()
def check(
    experiment: Annotated[str, typer.Argument(help="Such as news; or your own module:function.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    only: Annotated[str, typer.Option(metavar="NUMBERS", help="Only these checks, such as 7,11.")] = "",
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
) -> None:
    """Check an experiment before training it: data, first loss, overfitting, leaks, baselines ..."""
    import shlex
    import shutil

    from rich.console import Console
    from rich.live import Live

    from trainlab.checks import run as checks
    from trainlab.runs.display import PIPED_WIDTH

    config = checks.CheckConfig(experiment=experiment, settings=shlex.join(settings or []), only=only)
    if format is Format.json:
        checked = checks.check(config)
        print(checked.as_json())
    else:
        console = Console(highlight=False, width=shutil.get_terminal_size((PIPED_WIDTH, 24)).columns)
        findings: list[Finding] = []
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def show(finding: Finding) -> None:
                findings.append(finding)
                live.update(checks.table(findings), refresh=True)

            checked = checks.check(config, show)
        console.print(checked.table())
        print(f"run: {checked.run}")
    if checked.failed:
        raise typer.Exit(1)


@app.command("doctor")
def examine(format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text) -> None:
    """Look at engine, GPU, memory, disk, ports, permissions, hub and versions, and say how to fix them."""
    from rich.console import Console
    from rich.markup import escape

    from trainlab.cli import doctor

    found: list[Line] = []
    for line in doctor.examine():
        found.append(line)
        if format is Format.text:
            fix = (
                f"\n  [bold]fix:[/bold] {escape(lines(line.fix))}" if line.level != "ok" and line.fix else ""
            )
            subject, seen = escape(lines(line.subject)), escape(lines(line.found))
            text = f"[{COLOURS[line.level]}]{line.level:7}[/] {subject}: {seen}{fix}"
            Console(highlight=False, soft_wrap=True).print(text)
    if format is Format.json:
        print(json.dumps([vars(line) for line in found], indent=2))
    if any(line.level == "error" for line in found):
        raise typer.Exit(1)


@app.command("stop")
def stop_run(run: Reference, logs: Logs = None) -> None:
    """Stop a run; it saves a checkpoint first."""
    from trainlab.run import find, stopping

    print(stopping.stop(find.find(run, logs)))


@app.command("logs")
def show_log(run: Reference, logs: Logs = None) -> None:
    """Show what a headless run has printed; in a terminal also what it prints from now on."""
    from trainlab.headless import launcher, place
    from trainlab.run import find, lock

    folder = find.find(run, logs)
    log = folder / place.LOG
    if not log.is_file():
        raise UserError(
            f"The run {folder.name} has no {place.LOG}: it was not started by `trainlab run`. What it "
            "prints stands in its notebook or its terminal."
        )
    try:
        launcher.show_log(log, lambda: lock.alive(folder))
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        raise typer.Exit(128 + signal.SIGPIPE) from None


@app.command("export")
def export_run(
    run: Reference,
    to: Annotated[str, typer.Option("--to", help="wandb, mlflow or csv.")],
    logs: Logs = None,
) -> None:
    """Send a recorded run to a tracker: settings, curves, status."""
    from trainlab.runs import export

    found = row(run, logs)
    count = export.export(found, to)
    print(printable(f"{found.label}: {count:,} points sent to {to}"))


def main() -> None:
    """Run the command; a mistake of the user's ends with a sentence and code 2."""
    try:
        app()
    except (UserError, ModuleNotFoundError) as error:
        found = error if isinstance(error, UserError) else extras.explained(error, " ".join(sys.argv[1:2]))
        if not isinstance(found, UserError):
            raise
        sys.stdout.flush()
        print(f"error: {lines(without_secrets(str(found)))}", file=sys.stderr)
        sys.exit(found.exit_code)
