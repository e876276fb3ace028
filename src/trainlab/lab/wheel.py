"""Trainlab's own wheel, made of the package that runs: a lab carries it, and needs no index for it."""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
import zipfile
import zlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.lab import stack

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "jupyter/wheels"  # of a lab: where both engines look for it
_FILES = "trainlab/lab/files/"  # of the wheel: the stack's files
_PATTERNS = "trainlab/lab/stack.txt"  # of the wheel: which of them are a lab's
_LARGEST = 20_000_000  # bytes of all those files, unpacked; they are a tenth of it
# What zipfile raises for no archive, a missing entry, and one that is encrypted, cut short or packed oddly
_UNREADABLE = (
    OSError,
    zipfile.BadZipFile,
    KeyError,
    UnicodeDecodeError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)
_PACKAGE = Path(__file__).parents[1]


def content() -> tuple[str, bytes]:
    """Return the wheel's name and bytes; the same package gives the same bytes.

    Raises:
        UserError: This Python has trainlab's code, but it was never installed.
    """
    try:
        installed = metadata.distribution("trainlab")
    except metadata.PackageNotFoundError:
        raise UserError(
            "trainlab is on the path, but not installed: pip install the folder or its wheel."
        ) from None
    info = f"trainlab-{installed.version}.dist-info"
    entries = {f"trainlab/{name}": path.read_bytes() for name, path in _code().items()}
    entries |= {f"{_FILES}{name}": path.read_bytes() for name, path in stack.carried(stack.root()).items()}
    # the latter of an egg-info
    described = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    entries[f"{info}/METADATA"] = described.encode()
    entries[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    entries[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: trainlab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    entries[f"{info}/RECORD"] = "".join(_record(entries, f"{info}/RECORD")).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest that a zip file can name
            entry.external_attr = stack.mode(entries[name]) << 16
            archive.writestr(entry, entries[name], zipfile.ZIP_DEFLATED)
    return f"trainlab-{installed.version}-py3-none-any.whl", file.getvalue()


def stack_of(wheel: Path) -> dict[str, bytes]:
    """Return the stack's files that a wheel carries, by their paths.

    Raises:
        UserError: It is no wheel of trainlab, or one that carries far more than it should.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [each for each in archive.infolist() if each.filename.startswith((_FILES, _PATTERNS))]
            if sum(each.file_size for each in inside) > _LARGEST:
                raise UserError(
                    f"{wheel} carries more than {_LARGEST / 1e6:.0f} MB of files: it is not ours."
                )
            carried = {
                each.filename.removeprefix(_FILES): archive.read(each)
                for each in inside
                if each.filename.startswith(_FILES) and not each.is_dir()
            }
            listed = archive.read(_PATTERNS).decode()
    except _UNREADABLE as error:
        raise UserError(f"{wheel} can't be read as a wheel of trainlab: {error}") from error
    patterns = [line for line in listed.splitlines() if line and not line.startswith("#")]
    tops = {pattern.split("/")[0] for pattern in patterns}
    return {
        name: body
        for name, body in carried.items()
        if any(Path(name.split("/")[0]).match(top) for top in tops) and _plain(name)
    }


def _plain(name: str) -> bool:
    """Tell whether a path leads nowhere but down, and into nothing of git's."""
    parts = name.split("/")
    return (
        name.isprintable()
        and "\\" not in name
        and not {"", ".", "..", ".git"} & {each.lower() for each in parts}
    )


def _code() -> dict[str, Path]:
    paths = (path for path in sorted(_PACKAGE.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return {
        path.relative_to(_PACKAGE).as_posix(): path
        for path in paths
        if "__pycache__" not in path.parts and not path.is_relative_to(stack.CARRIED)
    }


def _record(entries: dict[str, bytes], itself: str) -> Iterator[str]:
    """Yield the lines of RECORD, by the specification of binary distributions (packaging.python.org)."""
    for name, body in sorted(entries.items()):  # in one order, as the same package gives the same wheel
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        yield f"{name},sha256={digest},{len(body)}\n"
    yield f"{itself},,\n"
