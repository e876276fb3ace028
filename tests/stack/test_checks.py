"""What `make` looks at before a start: a port of TensorBoard's that may be none; what it prints then."""

from __future__ import annotations

from fake_machine import ENGINE_INFO, Machine


def test_tensorboard_s_port_can_be_closed_and_is_then_behind_jupyterlab_s_login(machine: Machine) -> None:
    machine.environment["TENSORBOARD_PORT"] = "off"
    up = machine.make("up").stdout
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.door.yml"
    for said in (up, machine.make("status").stdout):
        assert f"TensorBoard  {machine.jupyter}/tensorboard/?token={machine.token}\n" in said
    machine.make("up", TENSORBOARD_PORT="6106")
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml"


def test_a_compose_that_cannot_take_a_port_away_is_told_before_anything_is_built(machine: Machine) -> None:
    machine.engine(ENGINE_INFO, compose="v2.17.3")
    done = machine.make("up", check=False, TENSORBOARD_PORT="off")
    assert (done.returncode, machine.built()) == (2, 0)
    assert "TENSORBOARD_PORT=off needs Compose 2.18" in done.stdout


def test_jupyterlab_s_port_cannot_be_closed(machine: Machine) -> None:
    done = machine.make("up", check=False, JUPYTER_PORT="off")
    assert "JUPYTER_PORT=off is not a port: a number from 1 to 65535; see .env" in done.stdout


def test_make_prints_the_board_s_address_with_the_token(machine: Machine) -> None:
    assert f"Board        {machine.jupyter}/board/?token=" in machine.make("up").stdout
    assert f"Board        {machine.jupyter}/board/?token={machine.token}\n" in machine.make("status").stdout
