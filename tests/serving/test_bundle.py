"""Bundles as an enemy may have made them: what is not as the manifest says is given to nobody."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

import onnx_files
from trainlab.serving import bundle
from trainlab.serving.bundle import BundleError
from trainlab.serving.texts import TextSettings


def sealed(folder: Path) -> str:
    """Seal a changed folder as its owner would, and trust it."""
    digest = bundle.seal(folder, "nearest")
    bundle.trust(digest, folder.name)
    return digest


def test_a_bundle_is_read_as_it_was_sealed(folder: Path) -> None:
    found = bundle.read(folder)
    assert (found.kind, sorted(found.content)) == ("nearest", ["card.json", "settings.json", "text.onnx"])
    assert found.settings(TextSettings).texts == 2
    assert found.json("card.json") == {"run": "mine"}
    assert found.digest == sealed(folder), "the same files give the same digest"


@pytest.mark.parametrize("name", ["text.onnx", "settings.json", "card.json"])
def test_a_flipped_bit_is_told_with_the_file_s_name(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is damaged or was replaced"):
        bundle.read(folder)


def test_a_file_that_is_missing_longer_or_more_is_told(folder: Path) -> None:
    (folder / "more.bin").touch()
    with pytest.raises(BundleError, match=r"says nothing of 'more.bin'"):
        bundle.read(folder)
    (folder / "more.bin").unlink()
    with (folder / "card.json").open("a") as file:
        file.write(" ")
    with pytest.raises(BundleError, match=r"card.json is damaged"):
        bundle.read(folder)
    (folder / "card.json").unlink()
    with pytest.raises(BundleError, match=r"card.json: No such file"):
        bundle.read(folder)


def test_a_link_a_hard_link_and_a_pipe_are_refused(folder: Path, tmp_path: Path) -> None:
    card = folder / "card.json"
    os.link(card, tmp_path / "other")
    with pytest.raises(BundleError, match="second name elsewhere"):
        bundle.read(folder)
    card.unlink()
    card.symlink_to(tmp_path / "other")
    with pytest.raises(BundleError, match="a link"):
        bundle.read(folder)
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(BundleError, match="a pipe"):
        bundle.read(folder)


def test_what_changes_on_the_disk_after_reading_changes_nothing(folder: Path) -> None:
    found = bundle.read(folder)
    (folder / "card.json").write_text('{"run": "evil"}')
    assert found.json("card.json") == {"run": "mine"}


def test_a_bundle_from_elsewhere_is_refused_until_its_digest_is_named(folder: Path) -> None:
    (folder / "card.json").write_text('{"run": "theirs"}')
    digest = bundle.seal(folder, "nearest")
    with pytest.raises(BundleError, match=f"not exported here.*--trust {digest}"):
        bundle.read(folder)
    with pytest.raises(BundleError, match=f"its digest is {digest}, expected {'0' * 64}"):
        bundle.read(folder, "0" * 64)
    assert bundle.read(folder, digest).json("card.json") == {"run": "theirs"}
    with pytest.raises(BundleError, match="not exported here"):
        bundle.read(folder)
    bundle.trust(digest, folder.name)
    assert bundle.read(folder).digest == digest


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"kind": "../x"},
        {"files": {"../../evil": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"a": {"sha256": "0" * 63, "bytes": 1}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": -1}}},
        {"files": {f"{each}": {"sha256": "0" * 64, "bytes": 1} for each in range(100)}},
        {"more": 1},
        "[]",
        "[" * 100_000,
        "{",
    ],
)
def test_a_manifest_that_is_none_is_told(folder: Path, changed: object) -> None:
    path = folder / bundle.MANIFEST
    text = changed if isinstance(changed, str) else json.dumps(json.loads(path.read_text()) | changed)  # type: ignore[operator]
    path.write_text(text[: bundle.LARGEST_MANIFEST])
    with pytest.raises(BundleError):
        bundle.read(folder, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no bundle.*export-model"):
        bundle.read(tmp_path)
    (tmp_path / bundle.MANIFEST).write_bytes(b" " * (1 << 20))
    with pytest.raises(BundleError, match="larger than"):
        bundle.read(tmp_path)


def test_a_network_with_values_elsewhere_is_refused_however_well_it_is_sealed(folder: Path) -> None:
    (folder / "text.onnx").write_bytes(onnx_files.outside(b"../../../../etc/passwd"))
    sealed(folder)
    with pytest.raises(BundleError, match=r"text.onnx: a tensor whose values lie in another file. Refused"):
        bundle.read(folder).session("text.onnx")


def test_settings_of_another_kind_name_the_setting(folder: Path) -> None:
    (folder / "settings.json").write_text('{"texts": 3}')
    sealed(folder)
    with pytest.raises(BundleError, match="texts: Input should be 1 or 2"):
        bundle.read(folder).settings(TextSettings)


def test_an_array_holds_as_much_as_it_claims(folder: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.save(folder / "items.npy", values)
    sealed(folder)
    assert bundle.read(folder).array().tolist() == values.tolist()
    content = (folder / "items.npy").read_bytes()
    for wrong in (
        content.replace(b"(3, 2)", b"(9, 2)"),
        content.replace(b"(3, 2), }   ", b"(9**9, 2), }"),
        content.replace(b"<f2", b"|O "),
        content[:-1],
        b"no array",
    ):
        (folder / "items.npy").write_bytes(wrong)
        sealed(folder)
        with pytest.raises(BundleError, match="no array that is read here"):
            bundle.read(folder).array()


def test_pickled_objects_are_no_arrays(folder: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([["x"]], object))
    (folder / "items.npy").write_bytes(file.getvalue())
    sealed(folder)
    with pytest.raises(BundleError, match="expected rows of floats"):
        bundle.read(folder).array()


def test_a_list_of_digests_that_is_a_pipe_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / bundle.TRUSTED).unlink()
    os.mkfifo(tmp_path / "models" / bundle.TRUSTED)
    with pytest.raises(BundleError, match="Expected a list of digests"):
        bundle.read(folder)
