"""Processed data packed once into one archive, so that runs need not prepare it again.

    data/frozen/<experiment>-<data>.zip         the files, their digests, and the settings that made them
    data/frozen/<experiment>-<data>-<digest>/   the same, unpacked when first used

An archive serves a run whose settings made it. It serves on a machine without the raw data too; where these
are, they must be what they were. Anything else is refused: nobody trains on other data than they asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import tempfile
import uuid
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from trainlab import files as atomic
from trainlab import paths
from trainlab.errors import UserError
from trainlab.files import digest, need, refusal, telling, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainlab.config import Config
    from trainlab.files import Report

MANIFEST = "frozen.json"  # the archive's first entry
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the same data gives the same bytes, whenever it is packed
LARGEST_MANIFEST = 1 << 26  # bytes, of some 300,000 files
DIGITS = 12  # of a digest in a folder's name


@dataclass(frozen=True)
class Recipe:
    """What an experiment freezes.

    `keys` are those settings of `config` that make the data; one of them is `data`, and names the archive.
    `raw` maps the raw files that are here to their SHA-256. `prepare(folder, report)` writes the processed
    files; the same settings and raw files must give the same bytes. `version` counts the changes of what it
    writes.
    """

    experiment: str
    config: Config
    keys: tuple[str, ...]
    raw: Mapping[str, str]
    prepare: Callable[[Path, Report], None]
    version: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that make the data, as JSON holds them."""
        return json.loads(json.dumps({key: getattr(self.config, key) for key in self.keys}))

    @property
    def archive(self) -> Path:
        """Return where the archive lies: one for each experiment and `data`."""
        data = str(self.config.model_dump()["data"])
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", data):  # a path
            data = f"file-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
        return home() / f"{self.experiment}-{data}.zip"

    @property
    def command(self) -> str:
        """Return the command that freezes this."""
        words = [f"{key}={value}" for key, value in self.config.changes().items() if key in self.keys]
        return shlex.join(["trainlab", "data", "freeze", self.experiment, *words])


@dataclass(frozen=True)
class Frozen:
    """An archive: where it lies, the SHA-256 and bytes of its files, and what made it."""

    path: Path
    files: Mapping[str, tuple[str, int]]
    settings: Mapping[str, Any]
    raw: Mapping[str, str]
    version: int

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(size for _, size in self.files.values())

    def manifest(self) -> bytes:
        """Return what the archive's first entry holds."""
        content = {key: getattr(self, key) for key in ("version", "settings", "raw", "files")}
        return json.dumps(content, indent=1, sort_keys=True).encode()

    def folder(self) -> Path:
        """Return where the archive is unpacked; other content goes to another folder."""
        name = hashlib.sha256(self.manifest()).hexdigest()[:DIGITS]
        return self.path.with_name(f"{self.path.stem}-{name}")


def freeze(recipe: Recipe, report: Report = lambda *_: None) -> Frozen:
    """Prepare the data and pack it; an archive of other settings is replaced once the new one is whole.

    Raises UserError where the disk refuses, and what the recipe raises; nothing half-done stays.
    """
    path = recipe.archive
    with telling(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as temporary:
            recipe.prepare(Path(temporary), report)
            frozen = _pack(recipe, Path(temporary), report)
        for old in _unpacked(path):
            shutil.rmtree(old, ignore_errors=True)  # a run that has its files open keeps them
    return frozen


def thawed(recipe: Recipe) -> Path | None:
    """Return the folder of the recipe's data out of its archive, or None where there is none.

    Every file's digest is checked. Raises UserError when the archive was made by other settings or from
    other raw files, is damaged, or can't be unpacked.
    """
    if not recipe.archive.exists():
        return None
    frozen = read(recipe.archive)
    _compare(frozen, recipe)
    folder = frozen.folder()
    with telling(folder.parent):
        if not _whole(frozen, folder):
            _unpack(frozen, folder)
    return folder


def read(path: Path) -> Frozen:
    """Return what an archive says of itself; raise UserError when it is damaged or none of ours."""
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
                raise ValueError(f"{MANIFEST} is too large")
            said = json.loads(packed.read(MANIFEST))
        if found := refusal(map(PurePosixPath, said["files"])):
            raise ValueError(found)
        files = {name: (str(sha256), int(size)) for name, (sha256, size) in said["files"].items()}
        return Frozen(path, files, dict(said["settings"]), dict(said["raw"]), int(said["version"]))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Look: ls -l {path}") from None
    except Exception as error:  # zipfile and json raise a dozen kinds for what an enemy may write
        raise _damaged(path, str(error)) from None


@contextmanager
def understood(recipe: Recipe) -> Iterator[None]:
    """Turn whatever fails on the way from unpacked files to data into a sentence about their archive."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # numpy and json raise a dozen kinds for what an enemy may write
        raise _damaged(recipe.archive, f"{type(error).__name__}: {str(error)[:200]}") from None


def archives() -> list[Path]:
    """Return the archives that are here, by name."""
    return sorted(home().glob("*.zip"))


def home() -> Path:
    """Return the folder of archives."""
    return paths.data() / "frozen"


def _pack(recipe: Recipe, folder: Path, report: Report) -> Frozen:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: (digest(folder / name), (folder / name).stat().st_size) for name in names}
    frozen = Frozen(recipe.archive, files, recipe.settings, dict(recipe.raw), recipe.version)
    need(folder, frozen.size)
    done = 0
    with atomic.replacing(frozen.path) as file, zipfile.ZipFile(file, "w") as packed:
        packed.writestr(zipfile.ZipInfo(MANIFEST, EPOCH), frozen.manifest())
        for name in names:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.file_size = files[name][1]  # more than 2 GiB need another kind of entry
            with (folder / name).open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            done += entry.file_size
            report(f"packing {frozen.path.name}", done, frozen.size)
    return frozen


def _compare(frozen: Frozen, recipe: Recipe) -> None:
    """Raise UserError that names each difference between what was frozen and what is wanted."""
    wanted = recipe.settings
    differences = [
        f"{key}: frozen {frozen.settings.get(key)!r}, wanted {wanted.get(key)!r}"
        for key in sorted(wanted.keys() | frozen.settings.keys())
        if frozen.settings.get(key) != wanted.get(key)
    ]
    differences += [
        f"{name}: changed since" for name, found in recipe.raw.items() if frozen.raw.get(name, found) != found
    ]
    if frozen.version != recipe.version:
        differences.append(f"layout: frozen {frozen.version}, wanted {recipe.version}")
    if differences:
        raise UserError(
            f"{frozen.path} holds other data than this asks for:\n  "
            + "\n  ".join(differences)
            + "\nFreeze it again: "
            f"{recipe.command}\nOr do without it: rm {shlex.quote(str(frozen.path))}"
        )


def _whole(frozen: Frozen, folder: Path) -> bool:
    return folder.is_dir() and all(
        (folder / name).is_file() and digest(folder / name) == sha256
        for name, (sha256, _) in frozen.files.items()
    )


def _unpack(frozen: Frozen, folder: Path) -> None:
    """Unpack into a temporary folder, which takes the name once it is whole and as the manifest says."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        try:
            found = unpack(frozen.path, made, frozen.path.stat().st_size)  # nothing in it is compressed
        except UserError as error:
            raise _damaged(frozen.path, str(error)) from None
        found.pop(MANIFEST, None)
        if found != {name: sha256 for name, (sha256, _) in frozen.files.items()}:
            raise _damaged(frozen.path, "its files are not those that it lists")
        if _whole(frozen, folder):
            return  # another process was faster
        if folder.exists():
            folder.replace(Path(temporary, uuid.uuid4().hex))  # damaged; goes with the temporary folder
        made.replace(folder)


def _unpacked(path: Path) -> list[Path]:
    pattern = re.compile(re.escape(path.stem) + rf"-[0-9a-f]{{{DIGITS}}}")
    return [each for each in path.parent.iterdir() if each.is_dir() and pattern.fullmatch(each.name)]


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged: {why}. Expected an archive that `trainlab data freeze` made: freeze it again, "
        f"or remove it and do without: rm {shlex.quote(str(path))}"
    )
