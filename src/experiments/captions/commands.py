"""`trainlab prepare-coco`, which the tool finds in this folder."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def prepare_coco(
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Read COCO's pictures once for the captions experiment: per_category, validation, test."""
    from experiments.captions import coco
    from experiments.captions.config import CaptionsConfig
    from trainlab.cli.data import progress
    from trainlab.config import assignments
    from trainlab.errors import UserError

    values = assignments(settings or [])
    config = CaptionsConfig.parse({"data": "coco"} | values)
    if idle := [key for key in values if key not in coco.KEYS]:
        raise UserError(
            f"{', '.join(idle)}: makes no difference to what is prepared. These settings do: "
            f"{', '.join(coco.KEYS)}."
        )
    with progress() as report:
        folder = coco.prepare(config, report)
    print(f"prepared: {folder}")
