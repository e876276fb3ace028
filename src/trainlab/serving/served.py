"""Which bundles are served: `models/served`, a folder's name on each line, replaced whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainlab import files, paths, untrusted
from trainlab.serving import bundle
from trainlab.serving.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.run.record import Record

FILE = "served"  # in models/
LARGEST = 1 << 12  # bytes
KINDS = ("nearest", "sentiment", "caption")  # what there are pages for, in their order


def names() -> list[str]:
    """Return the names of the folders in models/ that are served.

    Raises:
        BundleError: Nothing is chosen yet, or the file holds something else than such names.
    """
    place = paths.models() / FILE
    try:
        lines = untrusted.content(place, LARGEST).decode(errors="replace").split("\n")
    except FileNotFoundError:
        raise BundleError(
            f"{place}: nothing is chosen yet. Choose what is served: trainlab serve RUN"
        ) from None
    except OSError as error:
        raise BundleError(f"{place}: {error.strerror}. Choose again: trainlab serve RUN --choose") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found or len(found) > len(KINDS) or not all(map(bundle.NAME.fullmatch, found)):
        raise BundleError(
            f"{place}: expected the names of one to {len(KINDS)} folders in {place.parent}, one a line. "
            "Choose again: trainlab serve RUN --choose"
        )
    return found


def made_of(recorded: Record) -> dict[str, Any] | None:
    """Return the newest bundle in models/ of a run that there is a page for, as the run's record notes it."""
    noted = getattr(recorded, "exports", None)
    for each in reversed(noted if isinstance(noted, list) else []):
        if isinstance(each, dict) and each.get("kind") in KINDS:
            name = str(each.get("folder"))
            if bundle.NAME.fullmatch(name) and (paths.models() / name).is_dir():
                return each
    return None


def choose(chosen: Sequence[str]) -> None:
    """Write down which folders in models/ are served; raise UserError where the disk refuses."""
    place = paths.models() / FILE
    with files.telling(place):
        files.write(place, "".join(f"{name}\n" for name in chosen).encode())
