"""trainlab: an experiment stack for deep learning.

with trainlab.Run("my-experiment", vars(args)) as run:
    run.log({"train/loss": loss})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.config import Config as Config
    from trainlab.run.find import find as find
    from trainlab.run.run import Run as Run
    from trainlab.runs.frames import scalars as scalars
    from trainlab.runs.frames import table as table
    from trainlab.training.logger import RunLogger as RunLogger
    from trainlab.training.trainer import Trainer as Trainer
    from trainlab.training.transformers import RunCallback as RunCallback

__version__: str

# What is imported when it is asked for: pandas, torch and Lightning cost seconds
_MODULES = {
    "Config": "trainlab.config",
    "Run": "trainlab.run.run",
    "RunCallback": "trainlab.training.transformers",
    "RunLogger": "trainlab.training.logger",
    "Trainer": "trainlab.training.trainer",
    "find": "trainlab.run.find",
    "scalars": "trainlab.runs.frames",
    "table": "trainlab.runs.frames",
}
__all__ = [*_MODULES]  # noqa: PLE0604 - all of them are texts


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from trainlab import extras

        raise extras.explained(error, f"trainlab.{name}") from None


def _version() -> str:
    """Return the version that pyproject.toml names: the checkout's, or what was installed from it."""
    from importlib import metadata

    from trainlab import paths

    checkout = paths.checkout()
    if checkout and (project := checkout / paths.PROJECT).is_file():
        # what an editable installation notes may be older
        import tomllib

        return str(tomllib.loads(project.read_text())["project"]["version"])
    return metadata.version("trainlab")
