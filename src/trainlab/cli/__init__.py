"""The command `trainlab`. What costs seconds to import is imported by the command that needs it."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer.core

import trainlab
from trainlab import experiments
from trainlab.cleaning import lines
from trainlab.cli import data, runs, trackers, work
from trainlab.errors import UserError
from trainlab.secrets import without_secrets

if TYPE_CHECKING:
    from trainlab.checks.harness import Finding
    from trainlab.checks.run import CheckConfig, Checked
    from trainlab.cli.doctor import Line

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, data and all
    help="An experiment stack for deep learning: run notebooks, compare their runs.",
)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.command()(trackers.export)
app.command()(work.stop)
app.command("logs")(work.show_log)
for _name in experiments.with_file("commands.py"):
    try:
        app.add_typer(experiments.load(_name, "commands").app)
    except Exception as error:  # whatever it is, all other commands have to go on working
        print(f"warning: the commands of the experiment {_name} can't be read: {error}", file=sys.stderr)

PIPED_WIDTH = 160  # columns of a table where no terminal tells its width
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


class _WithArguments(typer.core.TyperCommand):
    """A command that keeps what stands behind `--` apart, as it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set `ctx.obj` to what stands there."""
        place = args.index("--") if "--" in args else len(args)
        ctx.obj = args[place + 1 :]
        return super().parse_args(ctx, args[:place])


@app.command(cls=_WithArguments)
def run(  # noqa: PLR0913, PLR0917
    ctx: typer.Context,
    program: Annotated[
        str, typer.Argument(metavar="NOTEBOOK|SCRIPT", help="A name under notebooks/, or a path.")
    ],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]... [-- ARGUMENT...]")] = None,
    module: Annotated[bool, typer.Option("-m", help="It is a module's name, as for `python -m`.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the parameters.")] = None,
    seed: Annotated[int | None, typer.Option(help="Set the parameter `seed`.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Resume this run: its name, a path, or 'last'.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start it and return at once.")] = False,
) -> None:
    """Execute a notebook or any Python script headless, and record it as a run.

    A script gets KEY=VALUE as --KEY=VALUE, and its own options behind `--` as they are.
    """
    from trainlab.headless import launcher

    words = parameters or []
    options = {"name": name, "resume": resume}
    raise typer.Exit(
        launcher.run(program, words, ctx.obj, module=module, seed=seed, detach=detach, **options)
    )


@app.command()
def check(
    experiment: Annotated[str, typer.Argument(help="Such as news; or your own module:function.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    only: Annotated[str, typer.Option(metavar="NUMBERS", help="Only these checks, such as 7,11.")] = "",
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
) -> None:
    """Check an experiment before training it: data, first loss, overfitting, leaks, baselines ..."""
    import shlex

    from trainlab.checks import run as checking

    config = checking.CheckConfig(experiment=experiment, settings=shlex.join(settings or []), only=only)
    if format is Format.json:
        checked = checking.check(config)
        print(checked.as_json())
    else:
        checked = _checked(config)
    if checked.failed:
        raise typer.Exit(1)


@app.command("doctor")
def examine(format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text) -> None:
    """Look at engine, GPU, memory, disk, ports, permissions, hub and versions, and say how to fix them."""
    from trainlab.cli import doctor

    if format is Format.json:
        found = list(doctor.examine())
        print(doctor.as_json(found))
    else:
        found = [_shown(line) for line in doctor.examine()]
    if any(line.level == "error" for line in found):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a mistake of the user's ends with a sentence and code 2."""
    try:
        app()
    except UserError as error:
        sys.stdout.flush()
        print(f"error: {lines(without_secrets(str(error)))}", file=sys.stderr)
        sys.exit(error.exit_code)


def _checked(config: CheckConfig) -> Checked:
    """Check, and show the table while it grows."""
    import shutil

    from rich.console import Console
    from rich.live import Live

    from trainlab.checks import run as checking

    console = Console(highlight=False, width=shutil.get_terminal_size((PIPED_WIDTH, 24)).columns)
    findings: list[Finding] = []
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def tell(finding: Finding) -> None:
            findings.append(finding)
            live.update(checking.table(findings), refresh=True)

        checked = checking.check(config, tell)
    console.print(checked.table())
    print(f"run: {checked.run}")
    return checked


def _shown(line: Line) -> Line:
    from rich.console import Console
    from rich.markup import escape

    mend = f"\n  [bold]fix:[/bold] {escape(lines(line.mend))}" if line.level != "ok" and line.mend else ""
    subject, found = escape(lines(line.subject)), escape(lines(line.found))
    Console(highlight=False, soft_wrap=True).print(
        f"[{COLOURS[line.level]}]{line.level:7}[/] {subject}: {found}{mend}"
    )
    return line
