"""Notebooks are read as people have them; refused is only what cannot run."""

from __future__ import annotations

import json

import nbformat
import pytest

from trainlab.errors import UserError
from trainlab.headless import notebook

CELL = {
    "cell_type": "code",
    "execution_count": None,
    "metadata": {},
    "outputs": [],
    "source": "print('ran')",
}
OLD = [{"output_type": "stream", "name": "stdout", "text": "old", "metadata": {}}, None, {"output_type": 5}]


def made(cell: dict | None = None, **fields) -> dict:
    known = {"cells": [CELL | (cell or {})], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    return {key: value for key, value in (known | fields).items() if value is not ...}


def without(key: str) -> dict:
    return made(cells=[{name: value for name, value in CELL.items() if name != key}])


WORKSHEET = {"cell_type": "code", "language": "python", "input": ["print(", "'ran')"], "prompt_number": 3}
LENIENT = {
    "an id in 4.4": made({"id": "a1b2c3d4"}),
    "no count": without("execution_count"),
    "no outputs": without("outputs"),
    "no metadata of a cell": without("metadata"),
    "outputs that are none": made({"outputs": OLD}),
    "outputs null": made({"outputs": None, "metadata": None, "execution_count": "7"}),
    "an id that is none": made({"id": "a b"}, nbformat_minor=5),
    "ids twice": made(cells=[CELL | {"id": "a", "source": "1"}, CELL | {"id": "a"}], nbformat_minor=5),
    "extra keys": made({"collapsed": True, "prompt_number": 2}, signature="x", worksheets=None),
    "odd metadata of a cell": made(
        {"metadata": {"collapsed": "no", "name": "", "execution": 3, "tags": "a,b"}}
    ),
    "a kernel without a name": made(metadata={"kernelspec": {"language": "python"}}),
    "a kernel null": made(metadata={"kernelspec": None, "language_info": None, "trainlab": None}),
    "a language without a name": made(metadata={"language_info": {"version": "3.8"}}),
    "odd metadata": made(metadata={"authors": "me", "title": 3, "orig_nbformat": "4"}),
    "metadata null": made(metadata=None),
    "no metadata": made(metadata=...),
    "no format": made(nbformat=..., nbformat_minor=...),
    "a format in quotes": made(nbformat="4", nbformat_minor=None),
    "a later minor format": made(nbformat_minor=99),
    "lines": made({"source": ["print(", "'ran')"]}),
    "a format null": made(nbformat=None),
    "another kind of cell": made(cells=[{"cell_type": "chart", "source": 5}, CELL]),
    "a heading": made(cells=[{"cell_type": "heading", "level": [10**30], "source": "H"}, CELL]),
    "format 3": made(cells=..., worksheets=[{"cells": [WORKSHEET], "metadata": {}}], nbformat=3),
    "format 2": made(cells=..., worksheets=[{"cells": [WORKSHEET]}], nbformat=2),
}


@pytest.mark.parametrize("content", LENIENT.values(), ids=LENIENT)
def test_what_running_does_not_need_is_put_right(tmp_path, content):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(content))
    nb = notebook.read(path)
    nbformat.validate(nb)
    (cell,) = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source != "1"]
    assert (cell.source, cell.outputs, cell.execution_count) == ("print('ran')", [], None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_notebook_is_read_in_every_encoding_of_json(tmp_path, encoding):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made({"source": "'Ü'"}), ensure_ascii=False), encoding=encoding)
    assert notebook.read(path).cells[0].source == "'Ü'"


def test_what_the_schema_allows_is_kept(tmp_path):
    extras = {"metadata": {"tags": ["parameters", "x"], "collapsed": True, "mine": {"a": 1}}, "id": "keep"}
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made(extras, metadata={"mine": [1]}, nbformat_minor=5)))
    nb = notebook.read(path)
    assert (nb.cells[0].id, nb.cells[0].metadata) == ("keep", extras["metadata"])
    assert nb.metadata == {"mine": [1]}


@pytest.mark.parametrize("ours", [None, "news", [], 3])
def test_metadata_of_ours_are_a_mapping_or_not_there(tmp_path, ours):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made(metadata={"trainlab": ours})))
    assert notebook.read(path).metadata == {}


def test_tags_are_kept_where_other_metadata_are_refused(tmp_path):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made({"metadata": {"tags": ["parameters", 5, "a,b"], "collapsed": 3}})))
    assert notebook.read(path).cells[0].metadata == {"tags": ["parameters", "a", "b"]}


PYTHON = [
    *({"kernelspec": {"name": "x", "language": each}} for each in ("Python", "python3", "ipython", "", None)),
    *(
        {"kernelspec": {"name": each}}
        for each in ("python3", "Python 3", "conda-env-r-py", "my-env", "rapids")
    ),
    {"kernelspec": {"name": "ir"}, "language_info": {"name": "python"}},
    {"kernelspec": {"name": None, "language": 5}, "language_info": {"name": "IPython"}},
]


@pytest.mark.parametrize("metadata", PYTHON, ids=str)
def test_python_is_known_however_it_is_spelled(tmp_path, metadata):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made(metadata=metadata)))
    assert notebook.read(path).cells[0].source == "print('ran')"


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"kernelspec": {"name": "ir", "display_name": "R"}}, "R"),
        ({"kernelspec": {"name": "julia-1.9", "language": None}}, "Julia"),
        ({"kernelspec": {"name": ".net-csharp"}}, ".NET"),
        ({"kernelspec": {"name": "python3", "language": "R"}}, "R"),
        ({"language_info": {"name": "julia"}}, "julia"),
        ({"language": "Julia"}, "Julia"),
        ({"kernelspec": {"name": "bash"}}, "Bash"),
    ],
)
def test_another_language_is_refused_by_its_name(tmp_path, metadata, language):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(made(metadata=metadata)))
    with pytest.raises(UserError, match=f"is a notebook in {language}; trainlab runs those in Python"):
        notebook.read(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (made(nbformat=5), "its format is '5'; expected 4"),
        (made(nbformat=True), "its format is 'True'"),
        (made(cells={}), "no list of 'cells'"),
        (made(cells=[3]), "its cell 1 has no 'cell_type'"),
        (made({"source": 5}), "the source of its cell 1 is no text"),
        (made({"source": ["a", None]}), "the source of its cell 1 is no text"),
        ("text", "expected an object"),
    ],
)
def test_what_cannot_run_is_refused_with_what_is_missing(tmp_path, content, told):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not a notebook") as error:
        notebook.read(path)
    assert told in str(error.value)


def test_a_file_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "mine.ipynb"
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match="nested too deeply"):
        notebook.read(path)
