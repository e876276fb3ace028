"""A bundle: the folder in `models/` that an export makes, read as if an enemy had written it.

    models/<run>-<digest12>/
        manifest.json    which files there are, bytes and SHA-256 of each; its own is the bundle's digest
        card.json        for people: run, settings, data, metrics, versions, licences, what the gate measured
        settings.json    for the program that runs it
        *.onnx           the networks
        tokenizer.json, words.json, items.npy, items.json    where the kind has them

`models/trusted` lists the digests of bundles that were exported here or that somebody has trusted by name.
Nothing of any other bundle is given to anybody. Needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.lib import format as npy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainlab import files, paths, untrusted
from trainlab.errors import UserError
from trainlab.serving import onnxfile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MANIFEST, CARD, SETTINGS, ITEMS = "manifest.json", "card.json", "settings.json", "items.npy"
TRUSTED = "trusted"  # in models/
LARGEST_MANIFEST = 1 << 16  # bytes; one of ten files has one kilobyte
LARGEST_TRUSTED = 1 << 24
LARGEST_HEADER = 1 << 16  # bytes of an array's file before its numbers
MOST_FILES = 32
SHORT = 12  # hexadecimal digits of a digest in a folder's name
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
NUMBERS = ("<f2", "<f4")  # what arrays hold

Settings = TypeVar("Settings", bound=BaseModel)


class BundleError(UserError):
    """A bundle that is missing, damaged, or of somebody who is not trusted."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=1 << 40)]


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    kind: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
    files: Annotated[dict[str, _Entry], Field(max_length=MOST_FILES)]


@dataclass(frozen=True)
class Bundle:
    """A bundle's files, each in memory as its digest was taken: what changes on the disk changes nothing.

    Attributes:
        folder: Where it lies.
        kind: What it can do: "nearest", "sentiment", "caption" or "module".
        digest: The SHA-256 of its manifest, and so of all its files.
        content: Each file's bytes, by its name.
    """

    folder: Path
    kind: str
    digest: str
    content: Mapping[str, bytes]

    def session(self, name: str) -> Any:
        """Return an onnxruntime session of one of its networks (see `onnxfile`)."""
        content = self._file(name)
        try:
            onnxfile.check(content)
        except ValueError as error:
            raise BundleError(f"{self.folder / name}: {error}. Refused. Export the run again.") from None
        return onnxfile.session(content)

    def settings(self, kind: type[Settings]) -> Settings:
        """Return its settings, checked."""
        try:
            return kind.model_validate(self.json(SETTINGS))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BundleError(f"{self.folder / SETTINGS}: {place}: {first['msg']}.") from None

    def json(self, name: str) -> Any:
        """Return what one of its JSON files holds."""
        try:
            return untrusted.parsed(self._file(name))
        except ValueError as error:
            raise BundleError(f"{self.folder / name}: not JSON ({error}).") from None

    def array(self, name: str = ITEMS) -> NDArray[Any]:
        """Return one of its arrays [N, D], which can't be written to.

        Its file says how large it is, and holds that much: nothing is taken from memory on its word alone.
        """
        content = self._file(name)
        try:
            with io.BytesIO(content[:LARGEST_HEADER]) as file:
                if npy.read_magic(file) != (1, 0):
                    raise ValueError("another version of NumPy's format than 1.0")
                shape, fortran, kind = npy.read_array_header_1_0(file)
                start = file.tell()
            if fortran or kind.str not in NUMBERS or len(shape) != 2:
                raise ValueError(f"{kind} of shape {shape}, expected rows of floats")
            return np.frombuffer(content, kind, offset=start).reshape(shape)
        except ValueError as error:
            raise BundleError(f"{self.folder / name}: no array that is read here ({error}).") from None

    def _file(self, name: str) -> bytes:
        if name not in self.content:
            raise BundleError(f"{self.folder} has no {name}. Export the run again.")
        return self.content[name]


def seal(folder: Path, kind: str) -> str:
    """Write the manifest of a folder's files, and return the bundle's digest."""
    held = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    known = {path.name: {"sha256": files.digest(path), "bytes": path.stat().st_size} for path in held}
    manifest = _Manifest.model_validate({"format": 1, "kind": kind, "files": known})
    content = json.dumps(manifest.model_dump(), indent=1).encode() + b"\n"
    files.write(folder / MANIFEST, content)
    return hashlib.sha256(content).hexdigest()


def read(folder: Path, trust: str = "") -> Bundle:
    """Read a bundle.

    Args:
        folder: Where it lies.
        trust: The digest of the bundle that is expected, 64 hexadecimal digits; without it, one that
            `models/trusted` lists.

    Returns:
        The bundle, all of it as its manifest says.

    Raises:
        BundleError: It is missing, not as its manifest says, has links or more files than that names, or its
            digest is another than the one trusted.
    """
    try:
        content = untrusted.content(folder / MANIFEST, LARGEST_MANIFEST)
    except OSError as error:
        raise BundleError(
            f"{folder} is no bundle: {MANIFEST}: {error.strerror}. Expected a folder that "
            "`trainlab export-model RUN` made."
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    _check_trust(folder, digest, trust)
    try:
        manifest = _Manifest.model_validate(untrusted.parsed(content))
    except ValueError as error:  # pydantic's is one
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BundleError(f"{folder / MANIFEST} doesn't say what is in the bundle: {reason}.") from None
    wrong = [name for name in manifest.files if not NAME.fullmatch(name) or name == MANIFEST]
    if more := sorted({path.name for path in folder.iterdir()} - {MANIFEST, *manifest.files}) or wrong:
        raise BundleError(
            f"{folder}: its manifest says nothing of {more[0]!r}. Refused. Export the run again."
        )
    held = {name: _verified(folder / name, entry) for name, entry in manifest.files.items()}
    return Bundle(folder, manifest.kind, digest, held)


def trust(digest: str, name: str) -> None:
    """Add a digest to those that `models/trusted` lists; the name is for people.

    Raises UserError where the disk refuses.
    """
    if digest in trusted():
        return
    place = paths.models() / TRUSTED
    with files.telling(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with untrusted.appended(place) as file:
            file.write(f"{digest}  {name}\n".encode())


def trusted() -> set[str]:
    """Return the digests that `models/trusted` lists; raise BundleError for a file that is none."""
    place = paths.models() / TRUSTED
    try:
        content = untrusted.content(place, LARGEST_TRUSTED)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise BundleError(f"{place}: {error.strerror}. Expected a list of digests.") from None
    return {line.split()[0] for line in content.decode(errors="replace").splitlines() if line.strip()}


def _check_trust(folder: Path, digest: str, wanted: str) -> None:
    if wanted and wanted != digest:
        raise BundleError(
            f"{folder}: its digest is {digest}, expected {wanted}. Refused: ask whoever made it which it has."
        )
    if not wanted and digest not in trusted():
        raise BundleError(
            f"{folder} was not exported here: its digest is {digest}. Ask whoever made it, on another way "
            f"than it came, for its digest. If it is this: trainlab check-model {folder} --trust {digest}"
        )


def _verified(path: Path, entry: _Entry) -> bytes:
    """Return a file's bytes; raise BundleError unless it is a file of its own, as the manifest says."""
    try:
        with untrusted.opened(path) as file:
            state = os.fstat(file.fileno())
            if state.st_nlink > 1:
                raise BundleError(
                    f"{path} has a second name elsewhere, by which it may change. Refused. Copy the bundle: "
                    f"cp -r --no-preserve=links {path.parent} COPY"
                )
            content = file.read(entry.bytes + 1) if state.st_size == entry.bytes else b""
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}. Refused. Export the run again.") from None
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} is damaged or was replaced: not what the manifest says. Export the run again."
        )
    return content
