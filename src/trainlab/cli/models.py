"""The commands that make and check what a trained run becomes for those who only use it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainlab import experiments
from trainlab.cleaning import printable
from trainlab.cli.options import Logs
from trainlab.errors import UserError

if TYPE_CHECKING:
    from trainlab.serving.export import Recipe

SHOWN = ("val/", "test/")  # metrics that are shown


class Format(StrEnum):
    """What a run is exported as."""

    onnx = "onnx"
    hub = "hub"


def export_model(  # noqa: PLR0913, PLR0917
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODULE:FUNCTION",
            help="A run's name or a unique part of it, a path, or 'last'; or your own module:function.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Put it into DIR; default: models/.")
    ] = None,
    weights: Annotated[
        str, typer.Option("--run", metavar="RUN", help="Of your own module: the run with its weights.")
    ] = "",
    format: Annotated[
        Format, typer.Option(help="For onnxruntime, or a folder for Transformers.")
    ] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Keep weights in 8 bits, if that is offered.")] = False,
    logs: Logs = None,
) -> None:
    """Export a run's best checkpoint for use without torch, once it answers as the run's network does."""
    from trainlab import paths
    from trainlab.headless.parameters import NAMED
    from trainlab.run import find
    from trainlab.serving import export, hubfolder

    if NAMED.fullmatch(run):
        if not weights:
            raise UserError(
                f"{run} makes a module that is not trained yet. Name the run whose weights it gets: "
                f"trainlab export-model {run} --run last"
            )
        folder = find.find(weights, logs)
        recipe = own_recipe(run, folder)
    else:
        if weights:
            raise UserError(
                f"--run {weights}: it is for a module of your own, and {run} is a run. Leave it out."
            )
        folder = find.find(run, logs)
        recipe = recipe_of(folder)
    if format is Format.hub and int8:
        raise UserError("--int8 is for onnxruntime: leave it out with --format hub, or leave that out.")
    if format is Format.hub:
        made = hubfolder.export(folder, recipe, output or paths.models())
    else:
        made = export.export(folder, recipe, output or paths.models(), int8=int8)
    for name, value in made.figures.items():
        print(f"{name.replace('_', ' ')}: {value:{'.3g' if isinstance(value, float) else ','}}")
    print(printable(f"exported: {made.folder} ({made.bytes / 1e6:,.1f} MB)"))
    print(f"digest: {made.digest}")


def own_recipe(name: str, run: Path) -> Recipe:
    """Return what a module of the user's own becomes, with the weights of a run.

    Args:
        name: `module:function`, as `trainlab check` takes it: a Subject, or a LightningModule with an
            `example_input_array`.
        run: The run's folder.

    Raises:
        UserError: There is no such function, it returns something else, or the weights don't fit.
    """
    from lightning import LightningModule

    from trainlab.checks.run import subject_of
    from trainlab.checks.subject import MissingFactError, Subject, loader_of
    from trainlab.serving import modules

    made: Any = subject_of(name, {})
    if isinstance(made, Subject):
        module, data = made.module(), made.data()
        data.prepare_data()
        data.setup("fit")
        try:
            loader = loader_of(data, "validation") or loader_of(data, "train")
            batches = [made.inputs(batch) for batch in loader]
        except MissingFactError as error:
            raise UserError(f"{name}: {error.prefix} {error}") from None
    elif isinstance(made, LightningModule) and made.example_input_array is not None:
        module, batches = made, [made.example_input_array]
    else:
        raise UserError(
            f"{name} returns {type(made).__name__}. Expected a Subject, or a LightningModule with an "
            "example_input_array of two items at least."
        )
    modules.load(module, run)
    return modules.recipe(module, batches)


def recipe_of(folder: Path) -> Recipe:
    """Return what a run becomes, as its experiment says; raise UserError where none does."""
    from trainlab.run import record

    name, known = record.read(folder).experiment, experiments.with_file(experiments.EXPORT)
    if name not in known:
        raise UserError(
            f"{folder.name} is a run of {name}, which says nothing of how it is exported. Known: "
            f"{', '.join(known) or 'none'}; for a LightningModule of your own: trainlab export-model "
            f"module:function --run {folder.name}"
        )
    return experiments.load(name, Path(experiments.EXPORT).stem).recipe(folder)


def check_model(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that export-model made.")],
    trust: Annotated[
        str, typer.Option(metavar="DIGEST", help="Trust this bundle of somebody else's from now on.")
    ] = "",
) -> None:
    """Check a bundle against its digests, and say what is in it; one from elsewhere only with --trust."""
    from trainlab.serving import bundle as bundles

    found = bundles.read(bundle, trust)
    for name in found.content:
        if name.endswith(".onnx"):
            found.session(name)
    card = found.json(bundles.CARD)
    if trust:
        bundles.trust(found.digest, bundle.resolve().name)
    print(f"{found.kind}: whole, digest {found.digest}")
    card = card if isinstance(card, dict) else {}
    metrics = card["metrics"] if isinstance(card.get("metrics"), dict) else {}
    shown = {name: card.get(name) for name in ("experiment", "run", "precision", "licences")}
    shown |= {tag: each for tag, each in metrics.items() if tag.startswith(SHOWN)}
    for name, value in shown.items():
        print(printable(f"{name}: {value}"))
