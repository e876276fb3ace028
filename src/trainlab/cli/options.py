"""What the commands about runs share: options that choose runs, and the runs chosen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer.core

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.run.metrics import Direction
    from trainlab.runs.listing import Row

Experiment = Annotated[str | None, typer.Option(help="Only this experiment's runs.")]
Logs = Annotated[Path | None, typer.Option("--logs", help="The folder of runs; default: logs/.")]
Where = Annotated[str, typer.Option(help="Only these, such as 'margin>=5 and val/loss<0.2'.")]
Sweep = Annotated[str, typer.Option("--sweep", help="Only the runs of this sweep.")]
Ending = Annotated[str, typer.Option("--status", help="Only those that are finished, failed, running ...")]
Since = Annotated[str, typer.Option(help="Only those started in the last 7d, 12h, 30m ...")]
Everything = Annotated[
    bool, typer.Option("--all", help="Also those that only looked at others, such as compare.")
]
Group = Annotated[
    bool,
    typer.Option("--group", help="Runs that differ by the seed alone as one row: n, mean ± spread."),
]
Reference = Annotated[str, typer.Argument(help="A run's name or a unique part of it, a path, or 'last'.")]
Mode = Annotated[
    Literal["auto", "min", "max"],
    typer.Option(help="Whether less or more of the metric is better, where the runs don't say."),
]


class WithArguments(typer.core.TyperCommand):
    """A command that keeps what stands behind `--` apart, as it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set `ctx.obj` to what stands there."""
        place = args.index("--") if "--" in args else len(args)
        ctx.obj = args[place + 1 :]
        return super().parse_args(ctx, args[:place])


def folder_of(context: typer.Context, logs: Path | None) -> Path:
    """Return the folder of runs: the one named behind a command, before it, or logs/."""
    from trainlab import paths

    return logs or context.obj or paths.logs()


def chosen(  # noqa: PLR0913, PLR0917
    logs: Path,
    experiment: str | None = None,
    where: str = "",
    status: str = "",
    since: str = "",
    directions: Mapping[str, Direction] | None = None,
    everything: bool = False,
    sweep: str = "",
    group: bool = False,
) -> list[Row]:
    """Return the runs that the options choose, the newest first, and say so where there is none.

    Those that only look at others are left out, with a message, unless their experiment is named or
    `everything` is wanted. `group` folds those that differ by the seed alone.
    """
    from trainlab.runs import folding, listing, query

    rows = listing.rows(logs, experiment, directions)
    if not rows:
        print(f"No runs in {logs} yet. Start one: trainlab run news", file=sys.stderr)
    options = [
        query.of_sweep(sweep),
        where,
        f'status="{status}"' if status else "",
        f'age<="{since}"' if since else "",
    ]
    left = query.select(rows, *options)
    if rows and not left:
        print(f"None of {len(rows)} runs fulfils {' and '.join(filter(None, options))}.", file=sys.stderr)
    looks = sorted(each.experiment for each in left if each.looks and not (everything or experiment))
    if looks:
        of = ", ".join(dict.fromkeys(looks))
        print(f"Left out: {len(looks)} that only looked ({of}). All: trainlab runs --all", file=sys.stderr)
        left = [each for each in left if not each.looks]
    if not group:
        return left
    folds = folding.fold(left)
    if remark := folding.remark(folds, rows):
        print(remark, file=sys.stderr)
    return [*folds]


def row(reference: str, logs: Path | None, directions: Mapping[str, Direction] | None = None) -> Row:
    """Return the run that somebody means; raise UserError when none is meant, or more than one."""
    from trainlab import paths
    from trainlab.run.find import find
    from trainlab.runs import listing

    folder, logs = find(reference, logs).resolve(), (logs or paths.logs()).resolve()
    logs = logs if folder.is_relative_to(logs) else folder.parents[1]
    return listing.read(folder, logs, directions=directions)
