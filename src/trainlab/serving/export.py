"""From a run to a bundle: written beside its place, measured against the run's network, then put there."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import files, paths
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.serving import bundle, networks
from trainlab.serving.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainlab.run.record import Record
    from trainlab.serving.bundle import Bundle
    from trainlab.serving.networks import Network

VERSIONS = ("trainlab", "torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")
LONGEST = 80  # characters of a run's name in a folder's name


@dataclass(frozen=True)
class Recipe:
    """What a run becomes. An experiment's `export.py` returns one from `recipe(folder)`.

    Attributes:
        kind: What the bundle can do: "nearest", "sentiment", "caption" or "module".
        networks: Each ONNX file's network, by the file's name.
        settings: What the program that runs it has to know.
        measure: Called with the bundle, read again, and the gate that it fills.
        files: Other files, by name: the tokenizer, a list of words, items.
        licences: Of backbone and data.
        card: What else the card says.
        no_int8: Why int8 is not offered; empty where it is.
        measure_int8: Called in place of `measure` for an export in int8.
        hub: Writes the files of a folder for the Hugging Face Hub, fills the gate with what is loaded from
            there again, and returns an example of its use; None where Transformers has no such network.
    """

    kind: str
    networks: Mapping[str, Network]
    settings: Mapping[str, Any]
    measure: Callable[[Bundle, Gate], None]
    files: Mapping[str, bytes] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    no_int8: str = "it was measured for classifiers of texts alone"
    measure_int8: Callable[[Bundle, Gate], None] | None = None
    hub: Callable[[Path, Gate], str] | None = None


@dataclass(frozen=True)
class Exported:
    """What was made: the bundle's folder, its digest, what its gate measured, and the bytes of its files."""

    folder: Path
    digest: str
    figures: dict[str, Any]
    bytes: int


def export(run: Path, recipe: Recipe, target: Path | None = None, *, int8: bool = False) -> Exported:
    """Make a bundle of a run, and note its digest in run.json and among those trusted.

    Args:
        run: The run's folder.
        recipe: What becomes of it.
        target: The folder that the bundle's folder is put into; by default `models/`.
        int8: Whether weights are kept in 8 bits.

    Returns:
        The bundle. The same run gives the same one again, with the same versions of the packages.

    Raises:
        UserError: The network can't be exported, the bundle doesn't answer as the network does (with the
            figures; nothing is left of it), or the disk refuses.
    """
    if int8 and recipe.no_int8:
        raise UserError(f"int8 is not offered here: {recipe.no_int8}. Export it in fp32: leave out --int8.")
    recorded, target = record.read(run), target or paths.models()
    with beside(target) as half:
        for name, network in recipe.networks.items():
            content = networks.to_onnx(network)
            (half / name).write_bytes(networks.to_int8(content) if int8 else content)
        for name, content in recipe.files.items():
            (half / name).write_bytes(content)
        _write_json(half / bundle.SETTINGS, recipe.settings)
        card = card_of(recorded, recipe) | {"precision": "int8" if int8 else "fp32"}
        _write_json(half / bundle.CARD, card)
        gate, measure = Gate(), recipe.measure_int8 if int8 else recipe.measure
        assert measure is not None, "a recipe without a reason against int8 says how it is measured"
        read = bundle.read(half, bundle.seal(half, recipe.kind))
        try:
            measure(read, gate)
        except UserError:
            raise
        except Exception as error:  # whatever onnxruntime says of a network that asks for what isn't there
            gate.faults.append(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        refuse(gate)
        _write_json(half / bundle.CARD, card | {"gate": gate.figures})
        return finished(run, half, target, recipe.kind, card["precision"], gate)


def finished(  # noqa: PLR0913, PLR0917
    run: Path, half: Path, target: Path, kind: str, precision: str, gate: Gate
) -> Exported:
    """Seal what was written beside its place, put it there, and note its digest; return what was made.

    Raises UserError where the disk refuses.
    """
    digest = bundle.seal(half, kind)
    bundle.read(half, digest)
    folder = placed(half, target / f"{_short(run.name)}-{digest[: bundle.SHORT]}", digest)
    bundle.trust(digest, folder.name)
    note(run, {"digest": digest, "folder": folder.name, "kind": kind, "precision": precision})
    return Exported(folder, digest, gate.figures, sum(path.stat().st_size for path in folder.iterdir()))


def refuse(gate: Gate) -> None:
    """Raise UserError where the gate has found a fault."""
    if gate.faults:
        raise UserError(
            f"The export doesn't answer as the run's network does: {'; '.join(gate.faults)}. It was deleted. "
            "Your run is whole: use it with trainlab itself, or try other versions of torch and onnxruntime."
        )


def note(run: Path, made: Mapping[str, Any]) -> None:
    """Add an export to those that run.json lists; raise UserError where it can't be written."""
    before = getattr(record.read(run), "exports", None)
    known = [each for each in before if isinstance(each, dict)] if isinstance(before, list) else []
    if any(each.get("digest") == made["digest"] for each in known):
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with files.telling(run / record.FILE):
        record.update(run, exports=[*known, {**made, "at": at}])


def card_of(recorded: Record, recipe: Recipe) -> dict[str, Any]:
    """Return what a card says of a run: nothing of where its files lay on this machine."""
    known = {
        "run": recorded.run,
        "experiment": recorded.experiment,
        "kind": recipe.kind,
        "settings": recorded.config,
        "seed": recorded.seed,
        "data": recorded.data,
        "metrics": {tag: point.model_dump() for tag, point in (recorded.best or recorded.last).items()},
        "code": recorded.git and recorded.git.model_dump(),
        "licences": dict(recipe.licences),
        "versions": _versions(),
        **recipe.card,
    }
    return _without_places(record.plain(known))


def placed(half: Path, folder: Path, digest: str) -> Path:
    """Rename a folder to its place, and return that; the same one stays, a damaged one makes room, hidden."""
    if folder.exists():
        try:
            bundle.read(folder, digest)
        except bundle.BundleError:
            folder.rename(tempfile.mkdtemp(prefix=f".damaged-{folder.name}-", dir=folder.parent))
    if not folder.exists():
        half.chmod(0o755)
        half.rename(folder)
    return folder


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Make a hidden folder in `target`, which is gone at the end unless it was renamed."""
    with files.telling(target):
        target.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=".export-", dir=target))
        try:
            yield half
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _short(name: str) -> str:
    """Return a run's name as far as every system can have it in a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:LONGEST].strip("-.") or "run"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n")


def _without_places(value: Any) -> Any:
    """Return settings with the last part alone of each path: the rest names people and machines."""
    if isinstance(value, dict):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    if isinstance(value, str) and re.match(r"(/|~|\.\.?/|[A-Za-z]:\\)", value) and "\n" not in value:
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
