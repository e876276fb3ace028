"""The service of exported runs: what `make serve` asks, refuses and says."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_machine import Machine


@pytest.fixture
def serving(machine: Machine, free_port: Callable[[], int]) -> Machine:
    """A machine on which `trainlab serve` writes its words into models/served, and a port for the service."""
    machine.environment["SERVE_PORT"] = str(free_port())
    return machine


def asked(machine: Machine) -> list[str]:
    """Return what the engine was told of the service, in its order."""
    told = re.findall(
        r"trainlab serve .*|compose (?:build|up|rm) .*serve$|ready\.py.*", machine.calls(), re.M
    )
    return [each.replace("/opt/trainlab/", "") for each in told]


def test_runs_are_chosen_where_notebooks_run_then_the_service_is_built_and_started(serving: Machine) -> None:
    said = serving.make("serve", "RUN=first  second").stdout
    assert asked(serving) == [
        "trainlab serve first second --choose",
        "compose build serve",
        "compose up --detach --no-deps --no-build serve",
        "ready.py",
    ]
    assert f"Serving      http://127.0.0.1:{serving.environment['SERVE_PORT']}/\n" in said
    assert "             nearest      first second --choose\n" in said, "what the service says of itself"
    assert "compose run --rm --no-deps --no-TTY jupyter" in serving.calls(), "no JupyterLab is started for it"
    assert "compose up --detach --wait" not in serving.calls()


def test_a_service_that_runs_is_told_to_read_anew_and_is_not_built_again(serving: Machine) -> None:
    serving.make("serve", "RUN=first")
    before = len(asked(serving))
    serving.make("serve", "RUN=second")
    assert asked(serving)[before:] == [
        "trainlab serve second --choose",
        "compose up --detach --no-deps --no-build serve",
        "ready.py 1",
    ]


def test_without_a_run_nothing_is_done(serving: Machine) -> None:
    done = serving.make("serve", "RUN= ", check=False)
    assert done.returncode == 2
    assert "For example: make serve RUN=last" in done.stdout
    assert asked(serving) == []
    assert not (serving.folder / ".env").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SERVE_PORT": "none"}, "SERVE_PORT=none is not a port"),
        ({"SERVE_PORT": "7000", "JUPYTER_PORT": "7000"}, "SERVE_PORT and JUPYTER_PORT are both 7000"),
        ({"SERVE_TOKEN": "two words"}, "SERVE_TOKEN in .env has a blank"),
    ],
)
def test_settings_that_would_fail_later_are_refused_first(
    serving: Machine, settings: dict[str, str], words: str
) -> None:
    done = serving.make("serve", "RUN=first", check=False, **settings)
    assert done.returncode == 2
    assert words in done.stdout
    assert asked(serving) == []


def test_what_cannot_be_chosen_changes_nothing(serving: Machine) -> None:
    (serving.tools / "refuses").write_text("error: models/first is damaged\n")
    done = serving.make("serve", "RUN=first", check=False)
    assert done.returncode == 2
    assert "error: models/first is damaged" in done.stdout
    assert asked(serving) == ["trainlab serve first --choose"]


def test_a_load_that_is_refused_leaves_the_choice_from_before(serving: Machine) -> None:
    serving.make("serve", "RUN=first")
    chosen = (serving.folder / "models/served").read_bytes()
    (serving.tools / "refuses-load").write_text("error: no memory for second\n")
    done = serving.make("serve", "RUN=second", check=False)
    assert done.returncode == 2
    assert "error: no memory for second\nWhat was served before goes on being served." in done.stdout
    assert (serving.folder / "models/served").read_bytes() == chosen, "for the next start"
    assert (serving.tools / "serving").exists()
    assert [path.name for path in (serving.folder / "models").iterdir() if path.name != ".gitignore"] == [
        "served"
    ]


def test_a_service_that_ends_at_its_start_is_taken_away_with_its_last_words(serving: Machine) -> None:
    (serving.tools / "unhealthy").touch()
    done = serving.make("serve", "RUN=first", check=False)
    assert done.returncode == 2
    assert "the service did not become healthy, and was stopped" in done.stdout
    assert "compose logs --no-log-prefix --tail 20 serve" in serving.calls()
    assert not (serving.tools / "serving").exists()


def test_status_and_down_know_it_and_unserve_stops_it_alone(serving: Machine) -> None:
    address = f"Serving      http://127.0.0.1:{serving.environment['SERVE_PORT']}/\n"
    assert "Serving" not in serving.make("status").stdout
    serving.make("serve", "RUN=first")
    said = serving.make("status").stdout
    assert re.search(r"^serve +healthy$", said, re.M)
    assert address in said
    assert "models/ stays as it is" in serving.make("unserve").stdout
    assert serving.calls().splitlines()[-1] == "compose rm --stop --force serve"
    assert "Serving" not in serving.make("status").stdout
    assert (serving.folder / "models/served").exists()


def test_the_token_is_said_nowhere(serving: Machine) -> None:
    said = serving.make("serve", "RUN=first", SERVE_TOKEN="hush-hush").stdout
    assert "Callers send SERVE_TOKEN of .env" in said
    assert "hush-hush" not in said + serving.calls()


def test_a_port_that_another_program_has_is_named_and_nothing_is_started(serving: Machine) -> None:
    with socket.create_server(("127.0.0.1", int(serving.environment["SERVE_PORT"]))):
        done = serving.make("serve", "RUN=first", check=False)
    assert done.returncode == 2
    assert re.search(r"Choose another: SERVE_PORT=\d+ make serve", done.stdout)
    assert asked(serving) == []
