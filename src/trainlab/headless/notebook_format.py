"""Notebook files as people have them, brought into the one form that can be executed.

Jupyter opens what its own schema refuses: outputs without counts, metadata of other programs, ids of a later
format. Nothing of that matters to running. Kept is what the schema allows; refused is what can't run.
"""

from __future__ import annotations

import json
import re
from typing import Any

from nbformat import NotebookNode, from_dict, validate, validator
from nbformat.corpus.words import generate_corpus_id

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


def parse(content: bytes) -> tuple[NotebookNode, str]:
    """Return a notebook in the newest format 4, and the language that it is in, 'python' where none is said.

    Raises ValueError that says what is missing where it can't be executed.
    """
    try:
        raw = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(raw, dict):
        raise ValueError("expected an object with 'cells'")
    _check_format(raw)
    metadata = _dict(raw.get("metadata"))
    if not isinstance(metadata.get("trainlab", {}), dict):
        metadata = {key: value for key, value in metadata.items() if key != "trainlab"}
    cells = [_cell(number, cell) for number, cell in enumerate(_cells(raw), 1)]
    known: set[str] = set()
    for cell in cells:
        if not (isinstance(cell["id"], str) and _ID.fullmatch(cell["id"])) or cell["id"] in known:
            cell["id"] = generate_corpus_id()
        known.add(cell["id"])
    made = {"nbformat": FORMAT, "nbformat_minor": MINOR, "metadata": _kernel_named(metadata), "cells": cells}
    notebook = from_dict(made)
    if not validator.isvalid(notebook):
        _drop_what_is_refused(notebook)
        validate(notebook)
    return notebook, _language(metadata)


def _check_format(raw: dict[str, Any]) -> None:
    """Raise ValueError for a format after ours; what a later minor one adds is dropped like other extras."""
    said = raw.get("nbformat")
    version = str(FORMAT if said is None else said)
    if not version.isdigit() or not 1 <= int(version) <= FORMAT:
        raise ValueError(f"its format is {version!r}; expected {FORMAT} or an earlier one")


def _cells(raw: dict[str, Any]) -> list[Any]:
    """Return the cells: of format 4 (and 1) at the top, of 3 and 2 in worksheets."""
    cells = raw.get("cells")
    if cells is None and isinstance(raw.get("worksheets"), list):
        cells = [cell for sheet in raw["worksheets"] for cell in _dict(sheet).get("cells") or []]
    if not isinstance(cells, list):
        raise ValueError("it has no list of 'cells'")
    return cells


def _cell(number: int, raw: Any) -> dict[str, Any]:
    kind = _dict(raw).get("cell_type")
    if not isinstance(kind, str):
        raise ValueError(f"its cell {number} has no 'cell_type'")
    source = next((raw[key] for key in _SOURCES if raw.get(key) is not None), "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) and kind != "code":
        source = ""
    if not isinstance(source, str):
        raise ValueError(f"the source of its cell {number} is no text")
    if kind == "heading":
        level = raw.get("level")
        kind, source = "markdown", f"{'#' * (level if level in range(1, 7) else 1)} {source}"
    metadata = _dict(raw.get("metadata"))
    if "tags" in metadata:
        metadata = metadata | {"tags": _tags(metadata["tags"])}
    cell = {"cell_type": kind, "id": raw.get("id"), "source": source, "metadata": metadata}
    if kind == "code":
        return cell | {"outputs": [], "execution_count": None}
    cell["cell_type"] = kind if kind in ("markdown", "raw") else "raw" if kind != "html" else "markdown"
    return cell | ({"attachments": raw["attachments"]} if "attachments" in raw else {})


def _tags(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    tags = [tag.strip() for text in texts if isinstance(text, str) for tag in text.split(",")]
    return list(dict.fromkeys(filter(None, tags)))


def _kernel_named(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook's metadata with both names that the schema wants of a kernel."""
    if "kernelspec" not in metadata:
        return metadata
    kernel = _dict(metadata["kernelspec"])
    name = _text(kernel.get("name")) or "python3"
    names = {"name": name, "display_name": _text(kernel.get("display_name")) or name}
    return metadata | {"kernelspec": kernel | names}


def _language(metadata: dict[str, Any]) -> str:
    """Return the language: the kernel's, the last execution's, format 3's; or that of a kernel's name."""
    kernel = _dict(metadata.get("kernelspec"))
    said = (
        kernel.get("language"),
        _dict(metadata.get("language_info")).get("name"),
        metadata.get("language"),
    )
    language = next(filter(None, map(_text, said)), "")
    if not language:
        first = re.split(r"[-_.\s]", _text(kernel.get("name")).strip(".").lower())[0]
        language = _OTHERS.get(first, "python")
    return "python" if _PYTHON.fullmatch(language) else language


def _drop_what_is_refused(notebook: NotebookNode) -> None:
    """Take away the metadata and attachments that the schema refuses, and no others."""
    for cell in notebook.cells:
        if not validator.isvalid(cell, ref=f"{cell.cell_type}_cell", version=FORMAT, version_minor=MINOR):
            cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
            cell.pop("attachments", None)
    for key in ("language_info", "authors", "title", "orig_nbformat"):
        notebook.metadata.pop(key, None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
