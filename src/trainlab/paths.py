"""Where things lie: one project folder, and in it `logs/`, `data/` and `notebooks/`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def root() -> Path:
    """Return the project folder: TRAINLAB_ROOT, the one that holds `src/`, or else the working folder."""
    package = Path(__file__).parent
    checkout = package.parents[1] if package.parent.name == "src" else Path.cwd()
    return Path(os.environ.get("TRAINLAB_ROOT") or checkout)


def logs() -> Path:
    """Return the folder of all runs, the one that TensorBoard serves."""
    return Path(os.environ.get("TRAINLAB_LOGS") or root() / "logs")


def data() -> Path:
    """Return the folder of data sets and of the hub cache."""
    return Path(os.environ.get("TRAINLAB_DATA") or root() / "data")


def notebooks() -> Path:
    """Return the folder of the notebooks that `trainlab run NAME` looks in."""
    return Path(os.environ.get("TRAINLAB_NOTEBOOKS") or root() / "notebooks")


def in_stack_container() -> bool:
    """Say whether this process runs in one of the stack's containers, and not in one that hosts an engine."""
    marked = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return marked and not shutil.which("docker")


def not_seen_here(paths: Iterable[str]) -> str:
    """Return, in a container of the stack, what to do about paths of the host; '' where all can be seen."""
    outside = (path for path in paths if path.startswith(("/", "~", "..")))
    lost = next((path for path in outside if not Path(path).exists()), None)
    if lost is None or not in_stack_container():
        return ""
    name = Path(lost).name
    place = notebooks() if name.endswith(".ipynb") else data()
    return (
        f" The container sees the project's folder alone, as {root()}, and not the machine's {lost}: copy it "
        f"into the project's {place.name}/ and name it {place / name}."
    )
