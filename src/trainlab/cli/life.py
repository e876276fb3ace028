"""`trainlab runs tag`, `note`, `archive`, `trim`, `delete`, `restore` and `trash`: the life of runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainlab.cleaning import printable
from trainlab.cli.options import Logs, Reference, folder_of
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.trash import Entry

LARGE = 10**9  # bytes: more are not unpacked without a question
MUCH, RATIO = 10**8, 20  # the same for what is packed this well; curves pack about 5 to 1, weights not at all

References = Annotated[list[str], typer.Argument(metavar="RUN", help="Names, parts of them, or paths.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def tag(
    context: typer.Context,
    run: Reference,
    names: Annotated[list[str], typer.Argument(metavar="TAG")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    logs: Logs = None,
) -> None:
    """Give a run tags, or take them away; `--where tag=TAG` finds it."""
    from trainlab.run import find, remarks

    folder = find.find(run, folder_of(context, logs))
    left = (remarks.untag if remove else remarks.tag)(folder, names)
    print(printable(f"{folder.name}: {' '.join(left.tags) or 'no tags'}"))


def note(
    context: typer.Context,
    run: Reference,
    text: Annotated[str | None, typer.Argument(help="The note; '' removes it, nothing prints it.")] = None,
    logs: Logs = None,
) -> None:
    """Write a note on a run, or print it."""
    from trainlab.run import find, remarks

    folder = find.find(run, folder_of(context, logs))
    if text is not None:
        remarks.note(folder, text)
        return
    for line in remarks.read(folder).note.splitlines():
        print(printable(line))


def archive(
    context: typer.Context,
    runs: References,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, such as runs.zip.")],
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Without the states that a resume needs.")
    ] = False,
    logs: Logs = None,
) -> None:
    """Pack runs into one file with digests; `restore` brings them back. The runs stay where they are."""
    from trainlab.runs.archive import pack

    logs = folder_of(context, logs)
    chosen = _movable(runs, logs)
    pack(chosen, output, logs, weights_only=weights_only)
    print(f"{output}: {len(chosen)} run(s), {_megabytes(output.stat().st_size)}")


def trim(context: typer.Context, runs: References, yes: Yes = False, logs: Logs = None) -> None:
    """Keep a run's best weights alone; it takes less room, and can't be resumed afterwards."""
    from trainlab.runs import trimming

    plans = [trimming.plan(folder) for folder in _movable(runs, folder_of(context, logs))]
    for each in plans:
        name, kept = each.folder.name, ", ".join(path.name for path in each.kept if path.suffix == ".ckpt")
        if not each.states:
            print(f"{name}: nothing to trim, it has no state to resume from.")
            continue
        _confirm(
            f"{name}: {len(each.states)} files to resume from ({_megabytes(each.frees)}) would be deleted "
            f"permanently. {kept} stays, and the run can't be resumed then",
            "Delete them?",
            yes,
        )
    for each in plans:
        if each.states:
            trimming.trim(each)
            print(f"{each.folder.name}: {_megabytes(each.frees)} freed. It can't be resumed any more.")


def restore(
    context: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="RUN|FILE", help="Deleted runs, or archives.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before much is unpacked.")] = False,
    logs: Logs = None,
) -> None:
    """Bring deleted runs back, or those of an archive, each to where it was."""
    import shutil

    from trainlab.run import find
    from trainlab.runs import trash
    from trainlab.runs.archive import unpack

    logs = folder_of(context, logs)
    files = [Path(each) for each in what if Path(each).is_file()]
    deleted = trash.entries(logs)
    meant = [find.pick(each, deleted, logs / trash.FOLDER) for each in what if Path(each) not in files]
    for file in files:

        def agree(size: int, file: Path = file) -> None:
            ratio = size / max(1, file.stat().st_size)
            if size > LARGE or (size > MUCH and ratio > RATIO):
                free = _megabytes(shutil.disk_usage(logs).free)
                question = (
                    f"{file} unpacks to {_megabytes(size)}, {ratio:,.1f} times its size; {free} are free"
                )
                _confirm(question, "Unpack it?", yes)

        print(*(printable(str(each)) for each in unpack(file, logs, agree)), sep="\n")
    for entry in {each.place: each for each in meant}.values():
        print(printable(str(trash.restore(entry))))


def list_trash(context: typer.Context, logs: Logs = None) -> None:
    """List the deleted runs, the newest first, with their sizes."""
    from trainlab.runs import display, trash

    found = trash.entries(folder_of(context, logs))
    width = max(map(len, found), default=0)
    for label, entry in found.items():
        size = _megabytes(trash.size(entry.folder))
        print(f"{printable(label):<{width}}  {size:>12}  {display.age(entry.deleted)} ago")


def delete(
    context: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Names, parts of them, or paths; '.trash/RUN' to purge."),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete permanently: a deleted RUN, or all of them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before a purge.")] = False,
    logs: Logs = None,
) -> None:
    """Move runs to the trash, from which `restore` brings them back, or delete them permanently."""
    from trainlab.run import find
    from trainlab.runs import trash

    logs = folder_of(context, logs)
    if purge:
        _purge(runs or [], logs, yes)
        return
    if not runs:
        raise UserError("Which runs? Name them: trainlab runs delete RUN. All of the trash: delete --purge")
    for folder in _movable(runs, logs):
        inside = len(list(find.run_folders(folder))) - 1
        label = printable(trash.delete(folder, logs).label)
        also = f", and {inside} inside it" if inside else ""
        print(f"In the trash: {label}{also}. Back again: trainlab runs restore {label}")


def _purge(references: list[str], logs: Path, yes: bool) -> None:
    """Delete runs, or all that are in the trash, permanently; a name may mean either kind."""
    import shutil

    from trainlab.files import telling
    from trainlab.run import find
    from trainlab.runs import trash

    deleted = trash.entries(logs)
    present: list[Path] = []
    doomed: dict[Path, Entry] = {} if references else {each.place: each for each in deleted.values()}
    for each in references:
        if each == "last" or find.is_run(Path(each)):
            present.append(find.find(each, logs))
            continue
        both: dict[str, Path | Entry] = dict(find.known(logs))
        both |= {f"{trash.FOLDER}/{label}": entry for label, entry in deleted.items()}
        meant = find.pick(each, both, logs)
        if isinstance(meant, Path):
            present.append(meant)
        else:
            doomed[meant.place] = meant
    present = _movable(present, logs)
    names = [f"{trash.FOLDER}/{each.label}" for each in doomed.values()]
    shown = printable(", ".join([*names, *(trash.run_id(each, logs) for each in present)]))
    if shown:
        size = _megabytes(trash.size(*(each.folder for each in doomed.values()), *present))
        _confirm(f"{shown} ({size}) would be deleted permanently", "Delete permanently?", yes)
    for entry in doomed.values():
        trash.purge(entry)
    if not references:
        trash.sweep(logs)
    for folder in present:
        with telling(folder), trash.exclusive(folder):
            shutil.rmtree(folder)
    print(f"Gone: {shown}" if shown else "The trash is empty.")


def _movable(runs: Sequence[str | Path], logs: Path) -> list[Path]:
    """Return the folders of runs; raise UserError before anything happens when one can't be moved."""
    from trainlab.run import find
    from trainlab.runs import trash

    return trash.movable([find.find(each, logs) for each in runs], logs)


def _confirm(what: str, question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{what}. Nobody is here to ask: add --yes.")
    typer.confirm(f"{what}. {question}", abort=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
