"""A sweep on a Ray cluster: how it is shared out, what is refused, and what a lost node costs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import postgresql
from ray_cluster import Cluster, installed, node_of
from sweeping import SCRIPT, Sweep, assert_whole, runner
from trainlab import extras
from trainlab.errors import UserError
from trainlab.run import checkpoint, lock, record
from trainlab.sweeps import cluster, database, tethered, worker
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the nodes of a cluster have that answers at once."""
    known: list[dict[str, float]] = []
    monkeypatch.setattr(extras, "need", lambda *_: None)
    monkeypatch.setattr(cluster, "_check", lambda _: None)
    monkeypatch.setattr(cluster, "_nodes", lambda _: known)
    return known


@pytest.mark.parametrize(
    ("has", "slots", "cpus"),
    [
        ([8.0, 8.0], 8, 2),
        ([3.0, 5.0], 2, 3),
        ([16.0], 3, 5),
        ([4.0], 8, 1),  # four wait for another node
        ([], 2, 1),
    ],
)
def test_the_cpus_are_shared_so_that_all_slots_find_room(
    nodes: list[dict[str, float]], has: list[float], slots: int, cpus: int
) -> None:
    nodes += [{"CPU": each} for each in has]
    found = cluster.find("auto", slots)
    assert (found.gpu, found.cpus, found.places) == (False, cpus, (1,) * slots)


def test_where_the_cluster_has_gpus_each_place_has_one(nodes: list[dict[str, float]]) -> None:
    nodes += [{"CPU": 4}, {"CPU": 32, "GPU": 4}, {"CPU": 16, "GPU": 2}]
    found = cluster.find("auto", 5)
    assert (found.gpu, found.cpus, found.places) == (True, 8, (1,) * 5)
    shared = cluster.find("auto", 5, per_gpu=2)
    assert (shared.cpus, shared.places) == (16, (2, 2, 1))
    assert str(shared) == "5 slots of Ray at auto, on nodes with 1 GPU and 16 CPUs each, 2 trials on each GPU"
    assert cluster.find("auto", 4, gpus=False).gpu is False


def test_gpus_that_are_asked_for_are_waited_for(nodes: list[dict[str, float]]) -> None:
    nodes.append({"CPU": 2})
    assert cluster.find("auto", 8, gpus=True).share == "1 GPU and 1 CPU"


@pytest.mark.parametrize(
    ("slots", "per_gpu", "words"),
    [(None, 1, "--slots 8"), (0, 1, "--slots 8"), (2, 0, "--per-gpu 0"), (2, 2, "has no GPU")],
)
def test_what_can_t_be_shared_out_is_refused(
    nodes: list[dict[str, float]], slots: int | None, per_gpu: int, words: str
) -> None:
    nodes.append({"CPU": 2})
    with pytest.raises(UserError, match=words):
        cluster.find("auto", slots, per_gpu=per_gpu)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://head:6379", "expected HOST or HOST:PORT"),
        ("head:99999", "expected HOST or HOST:PORT"),
        ("8.8.8.8", "an address of the internet"),
        ("nobody.invalid", "nobody answers there"),
        ("a..b", "nobody answers there"),
        (f"{'a' * 64}.invalid:6379", "nobody answers there"),
    ],
)
def test_an_address_that_can_t_be_is_refused(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "need", lambda *_: None)
    with pytest.raises(UserError, match=words):
        cluster.find(address, 1)


def test_a_port_of_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ASK", "import time; time.sleep(60)")
    monkeypatch.setattr(cluster, "TOLD_WITHIN", 0.2)
    with pytest.raises(UserError, match="is no Ray that this one understands"):
        cluster._nodes("127.0.0.1:1")


def test_a_cluster_that_asks_for_a_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "W gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: it is missing"
    monkeypatch.setattr(cluster, "_ASK", f"import sys; print({said!r}, file=sys.stderr)")
    with pytest.raises(UserError, match="asks for its token"):
        cluster._nodes("127.0.0.1:1")


def test_without_ray_the_command_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(
        UserError, match=r'--ray needs ray, which is not installed: pip install "trainlab\[ray\]"'
    ):
        cluster.find("127.0.0.1", 8)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "ray::Place() ModuleNotFoundError: No module named 'trainlab'",
            "a node lacks trainlab. Every node needs",
        ),
        (
            "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n",
            "Ray: 2.60.0 Python: 3.11.2 Start both from the same environment.",
        ),
    ],
)
def test_what_ray_says_of_a_node_is_one_sentence(said: str, words: str) -> None:
    assert words in cluster.explained(said)


def test_what_ray_prints_behind_the_answer_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = 'print(\'{"nodes": [{"CPU": 2}]}\')'
    monkeypatch.setattr(cluster, "_ASK", f"{answer}; print('[bye]'); print('2')")
    assert cluster._nodes("127.0.0.1:1") == [{"CPU": 2}]
    monkeypatch.setattr(cluster, "_ASK", "print('[bye]')")
    with pytest.raises(UserError, match="is no Ray that this one understands"):
        cluster._nodes("127.0.0.1:1")


class Told:
    """Stands in for whatever Ray gives: has each attribute, takes each call, and notes what it is told."""

    def __init__(self, told: list[Any]) -> None:
        self._told = told

    def __getattr__(self, name: str) -> Told:
        return self

    def __call__(self, *words: Any, **named: Any) -> Told:
        self._told.append((words, named))
        return Told(self._told)


class StandIn(ModuleType):
    """Ray, whose actors have all begun, and give the answers of a test, or none."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.told: list[Any] = []
        self.answers: list[tuple[int, str]] = []
        self.init = self.shutdown = self.kill = lambda *_, **__: None
        self.remote = Told(self.told)

    def wait(self, asked: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert num_returns == len(asked)
        time.sleep(timeout)
        ready = asked if not timeout else asked[: len(self.answers)]
        return ready, [each for each in asked if each not in ready]

    def get(self, _: Any) -> tuple[int, str]:
        return self.answers.pop(0)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Ray, in the place of the real one."""
    found = StandIn()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setattr(cluster, "GLANCE", 0.01)
    return found


@pytest.fixture
def crew() -> cluster.Crew:
    """Two workers of a sweep, one trial of which runs on a node that was lost."""
    queue: Any = SimpleNamespace(trials=lambda: [SimpleNamespace(state="running")])
    return cluster.Crew(queue, cluster.Cluster("head:6379", (1, 1), gpu=False, cpus=1), None)


TASK = {"at": "head", "name": "tiny", "logs": "/logs"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((2, "the program has changed"), "the program has changed"),
        ((143, "stopping: each run"), "a worker ended with the code 143.* stopping: each run"),
        ((1, ""), "a worker ended with the code 1"),
    ],
)
def test_a_worker_that_gives_up_is_no_success(
    stand_in: StandIn, crew: cluster.Crew, answer: tuple[int, str], words: str
) -> None:
    stand_in.answers = [answer] * 2
    with pytest.raises(UserError, match=words):
        crew.run(TASK)


def test_where_one_worker_has_ended_because_no_trial_is_left_the_sweep_has(
    stand_in: StandIn, crew: cluster.Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in.answers = [(143, ""), (0, "")]
    assert crew.run(TASK) == 0
    assert "one worker has ended: --ray head:6379: a worker ended with the code 143" in capfd.readouterr().err


def test_a_second_ctrl_c_ends_the_command_where_a_node_is_lost(
    stand_in: StandIn, crew: cluster.Crew, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "ENDS_WITHIN", 0.2)
    looks = iter(range(1000))

    def press(*_: Any) -> None:
        if next(looks) < 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(crew, "show", press)
    monkeypatch.setattr(cluster, "AGAIN", 0.01)
    assert crew.run(TASK) == 130
    assert "workers do not answer" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_behind_nohup_ctrl_c_stays_ignored(stand_in: StandIn, crew: cluster.Crew) -> None:
    seen = []
    crew.show = lambda *_: seen.append(signal.getsignal(signal.SIGINT))
    stand_in.answers = [(0, "")] * 2
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert crew.run(TASK) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(seen) == {signal.SIG_IGN}


def test_whatever_the_leader_starts_finds_its_folder_of_runs(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "leading", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(worker, "outcome", lambda _: 0)
    monkeypatch.setattr(cluster.Crew, "run", lambda *_: 0)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    ordered: Any = SimpleNamespace(name="tiny", at="head")
    found = cluster.Cluster("head", (1,), gpu=False, cpus=1)
    assert cluster.lead(ordered, found, logs=tmp_path / "other") == 0
    assert os.environ["TRAINLAB_LOGS"] == str(tmp_path / "other")


def test_a_worker_is_told_no_password(
    stand_in: StandIn, crew: cluster.Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", "hush")
    crew._start(TASK)
    tasks = [word for words, _ in stand_in.told for word in words if isinstance(word, tethered.Task)]
    assert [asdict(each) for each in tasks] == [TASK | {"slots": 1, "gpu": False, "cpus": 1}] * 2
    assert "hush" not in repr(stand_in.told)
    assert all("env" not in key for _, named in stand_in.told for key in named)
    with pytest.raises(UserError, match="leave the password out of the address"):
        database.shown("postgresql://trainlab:hush@head/trainlab")


def test_a_worker_that_can_t_begin_says_why(tmp_path: Path) -> None:
    """By the same way as in an actor, which is there for no more than to hold it."""
    (tmp_path / "logs").mkdir()
    task = tethered.Task("127.0.0.1:1", "tiny", str(tmp_path / "logs"), slots=1, gpu=False, cpus=1)
    code, said = tethered.Place().work(task)
    assert code == 2
    assert "127.0.0.1:1" in said


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (["a remark", '{"code": 2, "error": ""}'], (2, "a remark")),
        (["a remark", '{"code": 0, "error": ""}'], (0, "")),
        (['{"code": 2, "error": "why"}', "[ray] bye", "2"], (2, "why")),
    ],
)
def test_the_actor_tells_how_its_worker_ended_and_what_it_said(
    printed: list[str], told: tuple[int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{each}'\n" for each in printed))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert tethered.Place().work(tethered.Task("head", "tiny", "/logs", 1, False, 1)) == told


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own: Ray is in no lock."""
    return installed(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def server(free_port: Callable[[], int]) -> Iterator[postgresql.Server]:
    """The database of a head."""
    if not postgresql.programs():
        pytest.skip("PostgreSQL is not installed")
    found = postgresql.Server(free_port())
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def ray(python: Path, server: postgresql.Server, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """A cluster of two nodes, which know the head's password."""
    found = Cluster(python, free_port(), TRAINLAB_HEAD_PASSWORD=postgresql.PASSWORD)
    try:
        found.start("two")
        yield found
    finally:
        found.end()


class OnRay(Sweep):
    """A sweep of three trials that a command leads, a database keeps, and a cluster runs."""

    def __init__(self, root: Path, name: str, at: str, ray: Cluster) -> None:
        waiting = SCRIPT.replace("step == s.hold", "step >= s.hold")  # after a resume, too
        super().__init__(root, 3, script=waiting, name=name, fixed={"hold": "1"}, at=at)
        self.ray = ray

    def command(self) -> subprocess.Popen[str]:
        """Go on with the sweep, two trials at a time."""
        line = ["sweep", "--resume", self.definition.name, "--ray", self.ray.at, "--slots", "2"]
        leader = subprocess.Popen(
            [self.ray.python.with_name("trainlab"), *line, "--logs", self.logs],
            env=self.ray.environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(leader)
        return leader

    def states(self) -> list[str]:
        return [each.state for each in self.trials()]

    def until(
        self, leader: subprocess.Popen[str], condition: Callable[[], Any], what: str, seconds: float = 60
    ) -> None:
        """Wait for what a leader is to do; once it has ended, say at once what it has printed."""

        def met() -> Any:
            found = condition()
            assert found or leader.poll() is None, leader.communicate()[0]
            return found

        until(met, what, seconds)

    def assert_complete(self, leader: subprocess.Popen[str]) -> None:
        """Assert that a leader ends well, with each trial finished once, in one folder, and nothing left."""
        printed, _ = leader.communicate(timeout=120)
        assert leader.returncode == 0, printed
        assert self.states() == ["finished"] * 3
        assert len(self.folders()) == 3
        for folder in self.folders():
            assert_whole(folder)
        until(lambda: not self.ray.workers(), "no worker is left")


@pytest.fixture
def on_ray(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    server: postgresql.Server,
    ray: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OnRay]:
    """A sweep for the cluster."""
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", postgresql.PASSWORD)
    found = OnRay(tmp_path, request.node.name[:20].replace("_", "-"), server.at, ray)
    try:
        yield found
    finally:
        found.kill()


@pytest.mark.slow
def test_a_stop_and_a_leader_that_is_killed_leave_checkpoints_and_trials_that_wait(on_ray: OnRay) -> None:
    leader = on_ray.command()
    on_ray.until(leader, lambda: len(on_ray.folders()) == 2, "two runs begin", 120)
    folders = on_ray.held(2, 2)
    leader.send_signal(signal.SIGINT)
    printed, _ = leader.communicate(timeout=60)
    assert leader.returncode == 130, printed
    assert on_ray.states() == ["waiting"] * 3
    assert {record.read(each).status for each in folders} == {"interrupted"}
    assert all(checkpoint.newest(each) for each in folders)
    until(lambda: not on_ray.ray.workers(), "no worker is left")
    leader = on_ray.command()
    on_ray.until(leader, lambda: on_ray.states().count("running") == 2, "it goes on")
    resumes = lambda: [len(record.read(each).resumes) for each in folders]  # noqa: E731
    on_ray.until(leader, lambda: resumes() == [1, 1], "both runs go on")
    status = lambda: {record.read(each).status for each in folders}  # noqa: E731
    on_ray.until(leader, lambda: status() == {"running"}, "both runs go on")
    leader.kill()
    until(lambda: on_ray.states() == ["waiting"] * 3, "the workers give their trials back")
    until(lambda: not on_ray.ray.workers(), "no worker is left")
    on_ray.go()
    on_ray.assert_complete(on_ray.command())


@pytest.mark.slow
def test_a_lost_node_s_trial_goes_on_where_another_node_comes(on_ray: OnRay) -> None:
    leader = on_ray.command()
    on_ray.until(leader, lambda: len(on_ray.folders()) == 2, "two runs begin", 120)
    where = {node_of(runner(folder).pid): folder for folder in on_ray.held(2, 2)}
    assert where.keys() == {"one", "two"}
    on_ray.ray.kill("two")
    number = next(
        each.number
        for each in on_ray.trials()
        if each.runs[-1:] == (where["two"].relative_to(on_ray.logs).as_posix(),)
    )
    waits = lambda: on_ray.trials()[number].state == "waiting"  # noqa: E731
    on_ray.until(leader, waits, "the lost trial waits again")
    on_ray.ray.start("three")
    on_ray.until(leader, lambda: lock.alive(where["two"]), "the run goes on", 120)
    assert node_of(runner(where["two"]).pid) == "three"
    on_ray.go()
    on_ray.assert_complete(leader)
    assert [len(record.read(where[each]).resumes) for each in ("one", "two")] == [0, 1]
