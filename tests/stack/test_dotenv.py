"""make reads .env as Compose does, or refuses it with the line."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from project import CHECKOUT

# what .env holds, and what A is then; None: Compose itself refuses it
FORMS = {
    "": "unset",
    "# A=1": "unset",
    "A=1": "1",
    "A = 1": "1",
    "\tA\t=\t1 \t": "1",
    "export A=1": "1",
    "export\tA = 1": "1",
    "exportA=1": "unset",
    "A: 1": "1",
    "A=a:b": "a:b",
    "A=1=2": "1=2",
    "A=": "",
    "A=1\nA=2": "2",
    "A=1\nA=": "",
    "A\nB=2": "unset",
    "\n\nA=1\n\nB=2\n": "1",
    "\ufeffA=1": "1",
    "A=1\r\nB=2\r\n": "1",
    "A=x # c\nB=2": "x",
    "A=x#c": "x#c",
    "A= # c": "# c",
    "A=x\t#c": "x\t#c",
    "A='x' # c": "x",
    'A="x"#c': "x",
    'A="#"': "#",
    "A='a b  c '": "a b  c ",
    "A='it\\'s'": "it's",
    r"A='a\nb\\'": r"a\nb\\",
    r'A="a\nb\tc"': "a\nb\tc",
    r'A="a\\b\"c\"\d"': r'a\b"c"\d',
    r'A="a\$b$$c"': "a$b$c",
    r"A=a\nb\"": r"a\nb\"",
    "A=a'b'": "a'b'",
    'A=a"b': 'a"b',
    'A="one\ntwo"\nB=2': "one\ntwo",
    "A='one\n# two'\nB=2": "one\n# two",
    'A="x"B=2': "x",
    "B=2\nA=$B-${B}": "2-2",
    "A=$B\nB=2": "",
    "B=2\nA='$B'": "$B",
    "B=2\nA=$BC": "",
    "A=${B:-d e}": "d e",
    "B=\nA=${B:-d}${B-e}": "d",
    "B=1\nA=${B:+x}${B+y}${C+z}": "xy",
    r'A="\${B}\\${B:-2}"': r"${B}\2",
    "A=$HOME/x": "/nowhere/x",
    "A=a$ b$1$(c)`d`": "a$ b$1$(c)`d`",
    "A=a&b+c%d": "a&b+c%d",
    "A=深 é": "深 é",
    "A.B=1\nA-B=2\nA[0]=3\nA=4": "4",
    "A!=1": None,
    "A B=1": None,
    "A": None,
    "=1": None,
    "A='x": None,
    'A="x': None,
    "A='x'y": None,
    "A=${B": None,
    "A=${B.C}": None,
    "A=${B:?no}": None,
}
REFUSED = ("A=${B:-${C}}", r'A="\0101"', "A=\u00a0x", "A=x\u2003", "ключ=1\nA=2")  # which Compose reads
PIECES = (
    "a",
    " ",
    "  ",
    "'",
    '"',
    "\\",
    "$",
    "${B}",
    "$B",
    "#",
    " #",
    "\n",
    "=",
    ":",
    "B=1",
    "A=",
    "export ",
)
COMPOSE = 'services: {x: {image: x, environment: {A: "${A-unset}"}}}'
OURS = 'fail() { printf %s "$1" >&2; exit 2; }; . stack/dotenv.sh; read_env; printf %s "${dotenv_A-unset}"'


def ours(folder: Path, text: str) -> tuple[str | None, str]:
    """Return what A is to make, or None with its refusal."""
    (folder / ".env").write_bytes(text.encode())
    done = run(folder, "bash", "-euc", OURS)
    assert done.returncode in (0, 2), done.stderr
    return (None if done.returncode else done.stdout.decode()), done.stderr.decode()


def theirs(folder: Path, text: str) -> str | None:
    """Return what A is to Compose, or None if it refuses."""
    (folder / ".env").write_bytes(text.encode())
    done = run(folder, "docker", "compose", "config", "--format=json")
    if done.returncode:
        return None
    return json.loads(done.stdout)["services"]["x"]["environment"]["A"].replace("$$", "$")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "LANG": "C.UTF-8"}
    if command[0] == "docker":
        environment["DOCKER_CONFIG"] = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stack").symlink_to(CHECKOUT / "stack")
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    return tmp_path


@pytest.mark.parametrize("text", [*FORMS, *REFUSED])
def test_a_form_is_read_as_compose_reads_it_or_refused_with_its_line(folder: Path, text: str) -> None:
    found, refusal = ours(folder, text)
    assert found == FORMS.get(text), refusal
    assert found is not None or refusal.startswith("line 1 of .env ")


def test_the_line_of_a_refusal_is_counted_through_values_and_comments(folder: Path) -> None:
    _, refusal = ours(folder, "# one\nA='x\ny'\n\nB=1\nA!=2\n")
    assert refusal.startswith("line 6 of .env does not begin with a name and =")


@pytest.mark.docker
def test_compose_reads_each_form_as_the_table_says(folder: Path) -> None:
    assert {text: theirs(folder, text) for text in FORMS} == FORMS


@pytest.mark.docker
def test_made_up_files_are_read_as_compose_reads_them_or_refused(folder: Path) -> None:
    draw = random.Random(0)
    read = 0
    for _ in range(40):
        text = "A=" + "".join(draw.choices(PIECES, k=draw.randint(1, 6)))
        found, _ = ours(folder, text)
        if found is not None:
            assert found == theirs(folder, text), text
            read += 1
    assert read > 10
