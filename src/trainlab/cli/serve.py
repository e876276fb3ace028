"""The command that serves exported runs: a page, and what programs ask."""

from __future__ import annotations

import ipaddress
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from trainlab.cleaning import printable
from trainlab.cli.options import Logs
from trainlab.errors import UserError, nearest, some


def serve(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN|BUNDLE...", help="Runs, or folders in models/; a unique part will do."),
    ],
    host: Annotated[str, typer.Option(help="The address to serve at.")] = "127.0.0.1",
    port: Annotated[str | None, typer.Option(metavar="PORT", help="Default: SERVE_PORT, or 8000.")] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Only write models/served; start nothing.")
    ] = False,
    logs: Logs = None,
) -> None:
    """Serve exported runs: a page, and JSON for programs. A run that has no bundle yet is exported first."""
    from trainlab.serving import engine, served, server
    from trainlab.web import binding

    number = binding.port_of(port, "SERVE_PORT", server.PORT)
    if not choose:
        check_open(host)
        binding.bound(host, number).close()
    chosen = [name_of(each, logs) for each in names]
    loaded = engine.load(chosen)
    served.choose(chosen)
    for kind, name in loaded.names.items():
        print(printable(f"{kind}: {name}"))
    if choose:
        return
    sys.stdout.flush()
    # anew: what exported it holds torch. -P: not a folder `trainlab` that lies here by chance
    call = [sys.executable, "-P", "-m", "trainlab.serving.server", "--host", host, "--port", str(number)]
    os.execv(sys.executable, call)


def name_of(wanted: str, logs: Path | None) -> str:
    """Return the name of the bundle in models/ that is meant, after an export if need be.

    Args:
        wanted: A bundle's name, a run as `trainlab.find` understands it, or a unique part of a bundle's name.
        logs: The folder of runs; by default `logs/`.

    Raises:
        UserError: Nothing is meant, or more than one thing; the names that there are are told.
    """
    from trainlab import paths
    from trainlab.run import find

    place = paths.models()
    known = bundles(place)
    given = Path(wanted)
    if given.name in known and (wanted == given.name or given.resolve() == (place / given.name).resolve()):
        return given.name
    folder = logs or paths.logs()
    runs = find.known(folder) if folder.is_dir() else {}
    exact = wanted == "last" or wanted.strip("/") in {
        part for each in runs for part in (each, Path(each).name)
    }
    if exact or find.is_run(given):
        return of_run(find.find(wanted, logs))
    if len(matches := [name for name in known if wanted in name]) == 1:
        own = matches[0].rpartition("-")[0]
        if others := [each for each in runs if wanted.strip("/") in each and Path(each).name != own]:
            raise UserError(
                f"{wanted!r} means the bundle {matches[0]} and other runs: {some(others)}. "
                "Write more of the name."
            )
        return matches[0]
    if matches:
        raise UserError(f"{wanted!r} means {len(matches)} bundles: {some(matches)}. Write more of the name.")
    if any(wanted.strip("/") in label for label in runs):
        return of_run(find.find(wanted, logs))
    alike = [*known, *(name.rpartition("-")[0] for name in known), *(Path(each).name for each in runs)]
    raise UserError(
        f"No bundle and no run {wanted!r}.{nearest(wanted, alike)} "
        f"Bundles in {place}: {some(known)}. Runs in {folder}: {some(sorted(runs, reverse=True))}."
        f"{'' if known or runs else ' Train one first, such as: trainlab run news'}"
    )


def of_run(folder: Path) -> str:
    """Return the newest bundle of a run that a page can show, made now where there is none.

    Where the run has trained on since then, that is said.
    """
    from trainlab import paths
    from trainlab.cli.models import recipe_of
    from trainlab.run import record
    from trainlab.run.restoring import BEST
    from trainlab.serving import export, served

    run = folder.resolve().name
    if made := served.made_of(record.read(folder)):
        if _newer(folder / BEST, made.get("at")):
            print(
                printable(
                    f"{run} has a better checkpoint since this bundle was made. To serve that: "
                    f"trainlab export-model {run}, then this again."
                )
            )
        return str(made["folder"])
    print(printable(f"{run} has no bundle in {paths.models()} yet: it is exported first."))
    return export.export(folder, recipe_of(folder), paths.models()).folder.name


def _newer(file: Path, at: object) -> bool:
    """Say whether a file was written after a time, of which the seconds are known."""
    try:
        return file.stat().st_mtime >= datetime.fromisoformat(str(at)).timestamp() + 1
    except (OSError, ValueError):
        return False


def bundles(place: Path) -> list[str]:
    """Return the names of the bundles in a folder, the last made first."""
    from trainlab.serving import bundle

    if not place.is_dir():
        return []
    found = [path for path in place.iterdir() if bundle.NAME.fullmatch(path.name) and path.is_dir()]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def check_open(host: str) -> None:
    """Raise UserError where whoever reaches this machine could ask, and nobody has said that they may."""
    try:
        alone = ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = host == "localhost"
    if not alone and not os.environ.get("SERVE_TOKEN", "").strip():
        raise UserError(
            f"--host {host}: whoever reaches this machine could ask. Give them a token, as in "
            "SERVE_TOKEN=$(openssl rand -hex 16), or leave --host out and come by ssh -L (docs/machine.md)."
        )
