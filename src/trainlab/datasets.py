"""Data sets that lie elsewhere: address, size, digest, licence; fetched resumably, checked, unpacked whole.

    data/<name>/<archive>.zip      as published, never changed
    data/<name>/<part>/            what was in it, with a manifest of digests

A download goes to `<archive>.zip.part`, and takes its name once size and SHA-256 are right.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab import paths
from trainlab.errors import UserError, nearest
from trainlab.files import BLOCK, digest, need, telling, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.files import Report

MANIFEST = ".manifest.json"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # in a row without a new byte; each goes on where the one before broke off
PAUSE = 1.0  # seconds before the second attempt; doubled for each further one in a row
NAMED = 20  # changed files listed by name; the rest are counted
MAX_RATIO = 20  # unpacked over packed bytes; text packs about 4 to 1, a zip bomb 1,000 to 1


@dataclass(frozen=True)
class Archive:
    """One file to download, and the folder that its content goes to."""

    address: str
    size: int  # bytes
    sha256: str
    part: str

    @property
    def file(self) -> str:
        """Return the file's own name."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class Dataset:
    """A data set: archives to fetch, or files that are shipped with their digests."""

    name: str
    what: str
    licence: str
    archives: tuple[Archive, ...] = ()
    shipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the bytes to download."""
        return sum(archive.size for archive in self.archives)


_MIND = "https://huggingface.co/datasets/yjw1029/MIND/resolve/main"
# COCO publishes no digests. These stand in pytorch/vision (torchvision/prototype/datasets/_builtin/coco.py)
# and, for the pictures, in two copies' LFS pointers on the Hugging Face Hub (danasone/coco2017,
# nyanko7/coco-hosted); their MD5s, that many projects state, agree.
_COCO = "http://images.cocodataset.org"  # its certificate is the storage provider's: https fails there
_KNOWN = (
    Dataset(
        "sample",
        "860 news items in MIND's layout and 400 film reviews, written for this project",
        "MIT, as the project",
        shipped={
            "news.tsv": "8899e4a80ebf1da44291772878edfc1208b2aee91e16ff7c570b41b2943def3b",
            "reviews.csv": "2629719ad0aa66d9cf54e79ce3e74254d0e7fc44bc9efeaf0c5858463a9a77af",
        },
    ),
    Dataset(
        "mind-small",
        "Microsoft News, small: train (51,282 news) and dev",
        "Microsoft Research License: non-commercial research only, no redistribution (https://msnews.github.io)",
        archives=(
            Archive(
                f"{_MIND}/MINDsmall_train.zip",
                52_994_575,
                "6ef97a271580b98ccfc4301ada55cc639423cb0576a78b8dcfcf74a4dbcc3194",
                "train",
            ),
            Archive(
                f"{_MIND}/MINDsmall_dev.zip",
                30_948_560,
                "d6ce515dcaa6b6d47ddf0a326eebc8a31b84735ae410285c9882ca2a06eec669",
                "dev",
            ),
        ),
    ),
    Dataset(
        "coco",
        "COCO 2017: 118,287 pictures to train on, five captions each, and the boxes of their objects",
        "annotations CC BY 4.0; each picture has its own licence, named in them (https://cocodataset.org)",
        archives=(
            Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                252_907_541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                "annotations",
            ),
            Archive(
                f"{_COCO}/zips/train2017.zip",
                19_336_861_798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                "train2017",
            ),
        ),
    ),
)
DATASETS = {dataset.name: dataset for dataset in _KNOWN}


def lookup(name: str) -> Dataset:
    """Return the data set of that name; raise UserError with the nearest name where there is none."""
    if name not in DATASETS:
        raise UserError(f"no data set {name!r}.{nearest(name, DATASETS)} Known: {', '.join(DATASETS)}.")
    return DATASETS[name]


def here(dataset: Dataset) -> bool:
    """Say whether every part of the data set lies in `data/`."""
    folder = paths.data() / dataset.name
    parts = [folder / archive.part / MANIFEST for archive in dataset.archives]
    return all(path.is_file() for path in [*parts, *(folder / name for name in dataset.shipped)])


def offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids the network, in huggingface_hub's spellings."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch(dataset: Dataset, report: Report = lambda *_: None) -> list[Path]:
    """Download, check and unpack what is not here yet; return the folders that are new.

    Raises UserError when offline, unreachable, of a wrong digest, or the disk is full; a download that broke
    off stays as `.part` and goes on the next time, and of anything else nothing half-done stays.
    """
    new = []
    for archive in dataset.archives:
        folder = paths.data() / dataset.name
        target = folder / archive.part
        if (target / MANIFEST).is_file():
            continue
        if target.exists():
            raise UserError(
                f"{target} is there and was not made by `trainlab data`. Move it away, then again."
            )
        with telling(folder):
            _obtain(archive, folder / archive.file, report)
            _unpack(archive, folder / archive.file, target, report)
        new.append(target)
    return new


def verify(dataset: Dataset) -> int:
    """Read every file of the data set again and return how many are as they should be.

    Raises UserError that names each file that is missing or changed, and how to mend it.
    """
    folder = paths.data() / dataset.name
    if not here(dataset) and dataset.archives:
        raise UserError(f"{dataset.name} is not here. Get it: trainlab data fetch {dataset.name}")
    expected = {folder / name: sha256 for name, sha256 in dataset.shipped.items()}
    for archive in dataset.archives:
        target = folder / archive.part
        manifest = json.loads((target / MANIFEST).read_text())
        expected |= {target / name: sha256 for name, sha256 in manifest.items()}
    found = {path: digest(path) if path.is_file() else None for path in expected}
    wrong = [path for path in expected if found[path] != expected[path]]
    if wrong:
        listed = [f"{path}: {'changed' if found[path] else 'missing'}" for path in wrong[:NAMED]]
        more = [f"and {len(wrong) - NAMED:,} more"] if len(wrong) > NAMED else []
        parts = [folder / archive.part for archive in dataset.archives]
        bad = [str(part) for part in parts if any(part in path.parents for path in wrong)]
        again = f"rm -r {' '.join(bad)}; trainlab data fetch {dataset.name}"
        mend = f"git checkout {folder}" if dataset.shipped else again
        raise UserError("\n".join([*listed, *more, f"Fix it: {mend}"]))
    return len(expected)


def _obtain(archive: Archive, path: Path, report: Report) -> None:
    """Have the archive at `path`, checked: it lies there, or is downloaded."""
    if path.exists():
        _check(archive, path)
        return
    part = path.with_name(f"{path.name}.part")
    if offline():
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {archive.address} is not fetched. Unset it, or put that file by hand "
            f"at {path} and call this again."
        )
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(archive, part, path, report)
    try:
        _check(archive, part)
    except UserError:
        part.unlink()
        raise
    part.replace(path)


def _download(archive: Archive, part: Path, path: Path, report: Report) -> None:
    furthest = failures = 0
    while failures < ATTEMPTS:
        if failures:
            time.sleep(PAUSE * 2 ** (failures - 1))
        try:
            _continue(archive, part, report)
            return
        except urllib.error.HTTPError as error:
            reason: object = f"{error.code} {error.reason}"
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # the file there is another one
                part.unlink(missing_ok=True)
            elif error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
        done = part.stat().st_size if part.exists() else 0
        failures = 1 if done > furthest else failures + 1
        furthest = max(furthest, done)
    raise UserError(
        f"{archive.address} can't be fetched: {reason}. Check the network and call this again: it goes on "
        f"where it stopped. Or put that file by hand at {path}."
    )


def _continue(archive: Archive, part: Path, report: Report) -> None:
    """Download what `part` lacks; raise ConnectionError when the server stops early."""
    done = part.stat().st_size if part.exists() else 0
    if done >= archive.size:
        return
    request = urllib.request.Request(archive.address, headers={"User-Agent": "trainlab"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == 206 and response.headers["Content-Range"].startswith(f"bytes {done}-")
        if response.status == 206 and not resumed:
            raise ConnectionError(f"the server sent {response.headers['Content-Range']}, not bytes {done}-")
        done = done if resumed else 0
        need(part.parent, 2 * archive.size - done)  # what is in it takes as much again at least
        with part.open("ab" if resumed else "wb") as file:
            while done < archive.size and (block := response.read(min(BLOCK, archive.size - done + 1))):
                file.write(block)
                done += len(block)
                report(archive.file, done, archive.size)
    if done < archive.size:
        raise ConnectionError(f"the connection broke off after {done:,} of {archive.size:,} bytes")


def _check(archive: Archive, path: Path) -> None:
    size, found = path.stat().st_size, digest(path)
    if (size, found) != (archive.size, archive.sha256):
        raise UserError(
            f"{path} is not what was published: found {size:,} bytes, SHA-256 {found}; expected "
            f"{archive.size:,} bytes, {archive.sha256}. Remove it and fetch again."
        )


def _unpack(archive: Archive, path: Path, target: Path, report: Report) -> None:
    """Unpack into a temporary folder beside `target`, which takes the name once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{archive.part}-", dir=target.parent) as temporary:
        made = Path(temporary, archive.part)  # one level down: the outer one is private to this user
        made.mkdir()
        digests = unpack(path, made, MAX_RATIO * archive.size, report)
        (made / MANIFEST).write_text(json.dumps(digests, indent=2))
        made.replace(target)
