"""Data sets that lie elsewhere: address, size, digest, licence; fetched resumably, checked, unpacked whole.

    data/<name>/<archive>.zip      as published, never changed
    data/<name>/<part>/            what was in it, with a manifest of digests

A download goes to `<archive>.zip.part`, and takes its name once size and SHA-256 are right. Which data sets
there are, the experiments say, each in its `datasets.toml`.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from trainlab import experiments, extras, paths
from trainlab.errors import UserError, nearest
from trainlab.files import digest, need, telling, unpack

if TYPE_CHECKING:
    from trainlab.files import Report

MANIFEST = ".manifest.json"
NAMED = 20  # changed files listed by name; the rest are counted
MAX_RATIO = 20  # unpacked over packed bytes; text packs about 4 to 1, a zip bomb 1,000 to 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # of a file or folder


class Archive(BaseModel):
    """One zip file to download, of `size` bytes, and the folder `part` that its content goes to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(pattern=r"^https?://.+/\w[\w.-]*$")
    size: int = Field(gt=0)
    sha256: Sha256
    part: Name

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.address.rpartition("/")[2]


class Dataset(BaseModel):
    """A data set: archives to fetch, or files `shipped` with the project, each with its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    what: str
    licence: str
    archives: tuple[Archive, ...] = ()
    shipped: dict[Name, Sha256] = {}

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return paths.data() / self.name

    @property
    def here(self) -> bool:
        """Whether every part of it lies there."""
        files = [*(f"{archive.part}/{MANIFEST}" for archive in self.archives), *self.shipped]
        return all((self.folder / file).is_file() for file in files)


def known() -> dict[str, Dataset]:
    """Return the data sets of all experiments by name; raise UserError for a table that can't be read."""
    found: dict[str, Dataset] = {}
    for path in experiments.with_file("datasets.toml").values():
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
            found |= {name: Dataset(name=name, **table) for name, table in tables.items()}
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} can't be read: {error}") from None
    return found


def lookup(name: str) -> Dataset:
    """Return the data set of that name; raise UserError with the nearest name where there is none."""
    found = known()
    if name not in found:
        raise UserError(f"no data set {name!r}.{nearest(name, found)} Known: {', '.join(found)}.")
    return found[name]


def licence(name: str) -> str:
    """Return a data set's licence; of one of the user's own nothing is known."""
    found = known().get(name)
    return found.licence if found else "not known here: the data is your own, or see where it comes from"


def offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids the network, in huggingface_hub's spellings."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch(dataset: Dataset, report: Report = lambda *_: None) -> list[Path]:
    """Download, check and unpack what is not here yet.

    Args:
        dataset: One that `lookup` returns.
        report: Called with what is done, how many bytes of it so far, and how many in all.

    Returns:
        The folders that are new.

    Raises:
        UserError: Offline, unreachable, another size or digest, or a full disk. A download that broke off
            stays as `.part` and goes on the next time; of anything else nothing half-done stays.
    """
    new = []
    for archive in dataset.archives:
        path, target = dataset.folder / archive.file, dataset.folder / archive.part
        if (target / MANIFEST).is_file():
            continue
        if target.exists():
            raise UserError(
                f"{target} is there and was not made by `trainlab data`. Move it away, then again."
            )
        with telling(dataset.folder):
            if path.exists():
                _check(archive, path)
            else:
                _download(archive, path, report)
            with tempfile.TemporaryDirectory(prefix=f".{archive.part}-", dir=dataset.folder) as temporary:
                made = Path(temporary, archive.part)  # one level down: the outer one is private to this user
                made.mkdir()
                digests = unpack(path, made, MAX_RATIO * archive.size, report)
                (made / MANIFEST).write_text(json.dumps(digests, indent=2))
                made.replace(target)
        new.append(target)
    return new


def verify(dataset: Dataset) -> int:
    """Read every file of a data set again and compare its SHA-256.

    Returns:
        How many files are as they should be: all of them.

    Raises:
        UserError: Names each file that is missing or changed, and the command that mends it.
    """
    if not dataset.here and dataset.archives:
        raise UserError(f"{dataset.name} is not here. Get it: trainlab data fetch {dataset.name}")
    expected = {dataset.folder / name: sha256 for name, sha256 in dataset.shipped.items()}
    parts = [dataset.folder / archive.part for archive in dataset.archives]
    for part in parts:
        expected |= {
            part / name: sha256 for name, sha256 in json.loads((part / MANIFEST).read_text()).items()
        }
    found = {path: digest(path) if path.is_file() else None for path in expected}
    wrong = [path for path in expected if found[path] != expected[path]]
    if wrong:
        listed = [f"{path}: {'changed' if found[path] else 'missing'}" for path in wrong[:NAMED]]
        more = [f"and {len(wrong) - NAMED:,} more"] if len(wrong) > NAMED else []
        bad = [str(part) for part in parts if any(part in path.parents for path in wrong)]
        again = f"rm -r {' '.join(bad)}; trainlab data fetch {dataset.name}"
        fix = f"git checkout {dataset.folder}" if dataset.shipped else again
        raise UserError("\n".join([*listed, *more, f"Fix it: {fix}"]))
    return len(expected)


def _download(archive: Archive, path: Path, report: Report) -> None:
    """Write the archive to `path`, going on where an earlier download broke off."""
    if offline():
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {archive.address} is not fetched. Unset it, or put that file by hand "
            f"at {path} and call this again."
        )
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        failure = _transfer(archive, part, report)
        if not failure:
            _check(archive, part)
            part.replace(path)
    except UserError:  # not what was published
        part.unlink()
        raise
    if failure:
        if not part.stat().st_size:
            part.unlink()
        raise UserError(
            f"{archive.address} can't be fetched: {failure}. Check the network and call this again: it goes "
            f"on where it stopped. Or put that file by hand at {path}."
        )


def _transfer(archive: Archive, part: Path, report: Report) -> str:
    """Download what `part` lacks, as long as that gets on; return why it does not, or ''."""
    extras.need("huggingface_hub", "A download")
    from huggingface_hub.file_download import http_get  # goes on by itself where a connection breaks off
    from huggingface_hub.utils import silent_tqdm

    while True:
        done = part.stat().st_size if part.exists() else 0
        need(part.parent, 2 * archive.size - done)  # what is in it takes as much again at least
        with _Part(archive, part, report) as file:
            try:
                if done < archive.size:
                    http_get(archive.address, file, resume_size=done, tqdm_class=silent_tqdm)
                return ""
            except Exception as error:  # whatever the HTTP library raises for no route, no name, no answer
                if isinstance(error, UserError) or getattr(error, "errno", None):  # the disk's have a number
                    raise
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status == 416 and done:  # the file there is another, shorter one
                    file.truncate(0)
                elif file.tell() <= done:
                    return str(status or str(error).partition("\n")[0])


class _Part(io.BufferedWriter):
    """The file of a download: it says how far that is, and takes no more bytes than were published."""

    def __init__(self, archive: Archive, path: Path, report: Report) -> None:
        super().__init__(io.FileIO(path, "a"))
        self.archive, self.report = archive, report

    def write(self, block: Any, /) -> int:
        """Write a block, as the base class does."""
        done = self.tell() + len(block)
        if done > self.archive.size:
            raise _not_published(self.archive, f"{self.archive.address} of more bytes")
        self.report(self.archive.file, done, self.archive.size)
        return super().write(block)


def _check(archive: Archive, path: Path) -> None:
    size, found = path.stat().st_size, digest(path)
    if (size, found) != (archive.size, archive.sha256):
        raise _not_published(archive, f"{path} of {size:,} bytes, SHA-256 {found}")


def _not_published(archive: Archive, found: str) -> UserError:
    return UserError(
        f"{archive.file} is not what was published: found {found}; expected {archive.size:,} bytes, SHA-256 "
        f"{archive.sha256}. Remove it and fetch again."
    )
