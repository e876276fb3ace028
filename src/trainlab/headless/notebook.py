"""Notebook files: read as people have them, filled with parameters, written.

Jupyter opens what its own schema refuses: outputs without counts, metadata of other programs, ids of a later
format. Nothing of that matters to running. Kept is what the schema allows; refused is what can't run.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

# nbformat's validator compiles, where this package is there, a grammar of internationalised addresses, which
# no notebook holds; that takes two seconds, and a headless run would wait for them twice.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402
from nbformat import NotebookNode, validator  # noqa: E402
from nbformat.corpus.words import generate_corpus_id  # noqa: E402

from trainlab import files, literals  # noqa: E402
from trainlab.errors import UserError  # noqa: E402
from trainlab.headless.parameters import TAG  # noqa: E402
from trainlab.run import record  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

FILE = "notebook.ipynb"  # the executed copy in a run's folder
INJECTED = "injected-parameters"  # papermill's tag
FORMAT, MINOR = 4, 5
_SOURCES = ("source", "input", "code", "text")  # of formats 4, 3 and 2, 1
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PYTHON = re.compile(r"i?python[\d. ]*", re.IGNORECASE)
# names of kernels by the first word; any other may be an environment's, and is tried with this one's Python
_OTHERS = {
    **{"ir": "R", "r": "R", "irkernel": "R", "xr": "R", "julia": "Julia", "octave": "Octave", "sas": "SAS"},
    **{"matlab": "MATLAB", "bash": "Bash", "calysto": "Bash", "scala": "Scala", "almond": "Scala"},
    **{"spylon": "Scala", "javascript": "JavaScript", "ijavascript": "JavaScript", "deno": "TypeScript"},
    **{"tslab": "TypeScript", "java": "Java", "ijava": "Java", "kotlin": "Kotlin", "net": ".NET"},
    **{"rust": "Rust", "evcxr": "Rust", "xcpp": "C++", "xcpp11": "C++", "gophernotes": "Go", "go": "Go"},
    **{"ihaskell": "Haskell", "haskell": "Haskell", "ruby": "Ruby", "iruby": "Ruby", "perl": "Perl"},
    **{"stata": "Stata", "wolframlanguage": "Wolfram", "sql": "SQL", "sparkkernel": "Scala", "sos": "SoS"},
}


def read(path: Path) -> NotebookNode:
    """Return a Python notebook in the newest format 4, without what its last execution left in it.

    Raises:
        UserError: The file is no notebook that can run; it names the copy that Jupyter left if it was killed
            while saving.
    """
    try:
        raw = json.loads(path.read_bytes())
        notebook = _repaired(raw)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError, nbformat.ValidationError) as error:
        fault = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        fault = f"{path} is not a notebook: {fault.splitlines()[0][:200].rstrip('.')}."
        if command := way_back(path):
            fault += f" Saving it was cut off; the copy from before lies beside it. Take that back: {command}"
        raise UserError(fault) from None
    if (language := _language(_dict(raw.get("metadata")))) != "python":
        raise UserError(f"{path} is a notebook in {language}; trainlab runs those in Python.")
    return notebook


def way_back(path: Path) -> str:
    """Return the command that puts back the copy from before a save that was cut off, '' without one."""
    before = path.with_name(f".~{path.name}")  # Jupyter's: it is there for as long as the new one is written
    try:
        read(before)
    except UserError:
        return ""
    return f"mv {shlex.quote(str(before))} {shlex.quote(str(path))}"


def filled(notebook: NotebookNode, values: dict[str, Any]) -> NotebookNode:
    """Return the notebook with a cell that sets `values` behind its own defaults, at the top without these.

    It is tagged as papermill tags it, and takes the place of an earlier one. papermill's own function for
    that takes half a second to import, and knows JSON's kinds of value alone.
    """
    if not values:
        return notebook
    lines = ["# Parameters", *(f"{name} = {literals.written(value)}" for name, value in values.items())]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]})
    before, defaults = (_tagged(notebook, tag) for tag in (INJECTED, TAG))
    if before is None:
        notebook.cells.insert(0 if defaults is None else defaults + 1, cell)
    else:
        notebook.cells[before] = cell
    # where others look for them
    notebook.metadata.setdefault("papermill", NotebookNode())["parameters"] = record.plain(values)
    return notebook


def _tagged(notebook: NotebookNode, tag: str) -> int | None:
    """Return the number of the first cell with a tag."""
    tagged = (at for at, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", []))
    return next(tagged, None)


def filled_with(folder: Path) -> str:
    """Return the cell that a run's notebook was filled with, '' where there is none."""
    try:
        cells = read(folder / FILE).cells
    except UserError:
        return ""
    return "\n".join(cell.source for cell in cells if INJECTED in cell.metadata.get("tags", []))


def put_aside(folder: Path) -> None:
    """Keep the notebook that a run has executed so far, as notebook-1.ipynb, -2 and so on."""
    path = folder / FILE
    if path.exists():
        names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
        path.rename(next(name for name in names if not name.exists()))


def write(folder: Path, notebook: NotebookNode, unless: bytes = b"") -> bytes:
    """Write the notebook into a run's folder in one step, `unless` it is those bytes; return its bytes."""
    content = nbformat.writes(notebook).encode(errors="replace")
    if content != unless:
        files.write(folder / FILE, content)
    return content


def _repaired(raw: Any) -> NotebookNode:
    """Return a notebook that the schema allows; raise ValueError that says what is missing to execute it."""
    if not isinstance(raw, dict):
        raise ValueError("expected an object with 'cells'")
    version = str(FORMAT if raw.get("nbformat") is None else raw["nbformat"])
    if not version.isdigit() or not 1 <= int(version) <= FORMAT:  # a later minor one's extras are dropped
        raise ValueError(f"its format is {version!r}; expected {FORMAT} or an earlier one")
    cells = raw.get("cells")
    if cells is None and isinstance(raw.get("worksheets"), list):  # formats 3 and 2
        cells = [cell for sheet in raw["worksheets"] for cell in _dict(sheet).get("cells") or []]
    if not isinstance(cells, list):
        raise ValueError("it has no list of 'cells'")
    metadata = dict(_dict(raw.get("metadata")))
    if not isinstance(metadata.get("trainlab", {}), dict):
        del metadata["trainlab"]
    if "kernelspec" in metadata:  # the schema wants both names
        kernel = _dict(metadata["kernelspec"])
        name = _text(kernel.get("name")) or "python3"
        metadata["kernelspec"] = kernel | {
            "name": name,
            "display_name": _text(kernel.get("display_name")) or name,
        }
    made = [_cell(number, cell) for number, cell in enumerate(cells, 1)]
    known: set[str] = set()
    for cell in made:
        if not (isinstance(cell["id"], str) and _ID.fullmatch(cell["id"])) or cell["id"] in known:
            cell["id"] = generate_corpus_id()
        known.add(cell["id"])
    notebook = nbformat.from_dict(
        {"nbformat": FORMAT, "nbformat_minor": MINOR, "metadata": metadata, "cells": made}
    )
    if not validator.isvalid(notebook):  # take away the metadata and attachments that it refuses, no others
        for cell in notebook.cells:
            if not validator.isvalid(cell, ref=f"{cell.cell_type}_cell", version=FORMAT, version_minor=MINOR):
                cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
                cell.pop("attachments", None)
        for key in ("language_info", "authors", "title", "orig_nbformat"):
            notebook.metadata.pop(key, None)
        nbformat.validate(notebook)
    return notebook


def _cell(number: int, raw: Any) -> dict[str, Any]:
    kind = _dict(raw).get("cell_type")
    if not isinstance(kind, str):
        raise ValueError(f"its cell {number} has no 'cell_type'")
    source = next((raw[key] for key in _SOURCES if raw.get(key) is not None), "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        if kind == "code":
            raise ValueError(f"the source of its cell {number} is no text")
        source = ""
    metadata = dict(_dict(raw.get("metadata")))
    if "tags" in metadata:
        given = metadata["tags"] if isinstance(metadata["tags"], list) else [metadata["tags"]]
        tags = [tag.strip() for text in given if isinstance(text, str) for tag in text.split(",")]
        metadata["tags"] = list(dict.fromkeys(filter(None, tags)))
    cell = {"cell_type": kind, "id": raw.get("id"), "source": source, "metadata": metadata}
    if kind == "code":
        return cell | {"outputs": [], "execution_count": None}
    if kind == "heading":  # of format 3
        level = raw.get("level")
        cell["source"] = f"{'#' * (level if level in range(1, 7) else 1)} {source}"
    cell["cell_type"] = "markdown" if kind in ("markdown", "heading", "html") else "raw"
    return cell | ({"attachments": raw["attachments"]} if "attachments" in raw else {})


def _language(metadata: dict[str, Any]) -> str:
    """Return the language: the kernel's, the last execution's, format 3's; or that of a kernel's name."""
    kernel = _dict(metadata.get("kernelspec"))
    executed = _dict(metadata.get("language_info")).get("name")
    reported = (kernel.get("language"), executed, metadata.get("language"))
    language = next(filter(None, map(_text, reported)), "")
    if not language:
        first = re.split(r"[-_.\s]", _text(kernel.get("name")).strip(".").lower())[0]
        language = _OTHERS.get(first, "python")
    return "python" if _PYTHON.fullmatch(language) else language


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
