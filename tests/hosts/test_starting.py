"""What a host checks before its processes start, and how hosts find one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainlab.errors import UserError
from trainlab.hosts import rendezvous, starting
from trainlab.run import lock, record


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(rendezvous, "answers", lambda _: True)
    return tmp_path / "logs"


@pytest.fixture
def held() -> Iterator[list[lock.Lock]]:
    locks: list[lock.Lock] = []
    yield locks
    for each in locks:
        each.release()


def host(**changes: object) -> starting.Shared:
    known = {"nodes": "1:2", "join": "127.0.0.1", "name": "big", "devices": None}
    return starting.Shared(**known | changes)  # type: ignore[arg-type]


def joined(shared: starting.Shared, locks: list[lock.Lock], **config: object) -> Path:
    """Let a host make or join the run, as far as its agent's start."""
    folder, mine = shared.new("line", shared.name, config)
    locks += [mine] if mine else []
    shared.arguments(folder, Path("mine.py"), "", [])
    return folder


def test_the_first_host_makes_the_folder_and_the_others_take_it(held: list[lock.Lock], logs: Path) -> None:
    first, second = host(), host()
    folder = joined(first, held, margin=1)
    assert joined(second, held, margin=1) == folder
    assert [first.made, second.made] == [True, False]
    assert (first.log, second.log.startswith("output-")) == ("output.log", True)
    assert len(list(logs.glob("line/*/run.json"))) == 1
    known = record.read(folder)
    assert (known.nodes, known.pid, known.status) == ("1:2", None, "running")


def test_a_host_with_another_setting_is_refused(held: list[lock.Lock]) -> None:
    joined(host(), held, margin=1)
    with pytest.raises(UserError, match=r"margin: that run has 1, given is 2\.\n.*same line"):
        joined(host(), held, margin=2)


def test_a_name_whose_run_is_finished_or_gone_is_refused(held: list[lock.Lock], logs: Path) -> None:
    folder = joined(host(), held)
    record.write_end(folder, "finished")
    with pytest.raises(UserError, match=r"is finished\. Take another name"):
        joined(host(), held)
    folder.rename(logs / "elsewhere")
    with pytest.raises(UserError, match=r"its run is no longer there.*delete .*\.big\.nodes"):
        joined(host(), held)


def test_a_run_that_was_interrupted_goes_on(held: list[lock.Lock]) -> None:
    folder = joined(host(), held)
    record.write_end(folder, "interrupted", "SIGTERM")
    assert joined(host(), held) == folder


def test_a_first_host_that_died_before_it_made_the_run_is_not_waited_for_for_ever(
    held: list[lock.Lock], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "MADE_WITHIN", 0.2)
    host().new("line", "big", {})[1].release()  # type: ignore[union-attr]
    with pytest.raises(UserError, match="the host that began to was lost"):
        joined(host(), held)


def test_a_first_host_that_could_not_start_leaves_the_name_free(held: list[lock.Lock], logs: Path) -> None:
    first = host()
    first.new("line", "big", {})[1].release()  # type: ignore[union-attr]
    first.abandon()
    assert not first.own.exists()
    assert joined(host(), held).exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"run": 3}', '{"run": ".."}', '{"run": "", "given": 1}'])
def test_a_broken_claim_leads_nowhere(content: str, held: list[lock.Lock], logs: Path) -> None:
    (logs / "line").mkdir(parents=True)
    (logs / "line" / ".big.nodes").write_text(content)
    with pytest.raises(UserError, match=r"[Tt]ake another (--)?name"):
        joined(host(), held)


def test_secrets_do_not_stand_in_the_claim(held: list[lock.Lock], logs: Path) -> None:
    joined(host(), held, api_key="abcdefgh12345")
    assert json.loads((logs / "line/.big.nodes").read_text())["given"] == {"api_key": "***"}


def test_how_many_processes_a_host_has_is_its_own_or_the_setting(held: list[lock.Lock]) -> None:
    first, second = host(), host(devices=4)
    joined(first, held, devices=2)
    joined(second, held, devices=2)
    assert (first.devices, second.devices) == (2, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": None}, "needs both: --nodes 1:2 says how many hosts"),
        ({"join": None}, "needs both"),
        ({"name": None}, "the hosts find each other's run by its name"),
        ({"name": "///"}, "the hosts find each other's run by its name"),
        ({"nodes": "none"}, "expected how many hosts train"),
        ({"join": "8.8.8.8"}, "an address of the internet"),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_anything_is_made(
    given: dict[str, object], said: str, logs: Path
) -> None:
    known = {"nodes": "1:2", "join": "127.0.0.1", "name": "big", "devices": None} | given
    with pytest.raises(UserError, match=said):
        starting.run("news", [], [], **known)  # type: ignore[arg-type]
    assert not logs.exists()
    assert starting.HOSTS not in os.environ


def test_nodes_that_are_given_twice_and_differ_are_refused() -> None:
    with pytest.raises(UserError, match="--nodes 2 and nodes=3 differ"):
        starting.run("news", ["nodes=3"], [], nodes="2", join="127.0.0.1", devices=None, name="big")
