"""A sweep on a Ray cluster: how it is shared out, what is refused, and what a lost node costs."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

import postgresql
from ray_cluster import Cluster, installed, node_of
from sweeping import Sweep, assert_whole, runner
from trainlab import extras
from trainlab.errors import UserError
from trainlab.run import checkpoint, lock, record
from trainlab.sweeps import cluster, database, tethered
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


def test_a_worker_is_told_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", "hush")
    task = tethered.Task("head", "tiny", "/logs", slots=1, gpu=False, cpus=2)
    assert "hush" not in json.dumps(asdict(task))
    with pytest.raises(UserError, match="leave the password out of the address"):
        database.shown("postgresql://trainlab:hush@head/trainlab")


def test_a_worker_that_can_t_begin_says_why(tmp_path: Path) -> None:
    """By the same way as in an actor, which is there for no more than to hold it."""
    (tmp_path / "logs").mkdir()
    task = tethered.Task("127.0.0.1:1", "tiny", str(tmp_path / "logs"), slots=1, gpu=False, cpus=1)
    code, said = tethered.Place().work(task)
    assert code == 2
    assert "127.0.0.1:1" in said


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
        super().__init__(root, 3, name=name, fixed={"hold": "1"}, at=at)
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
    folders = on_ray.held(2, 2)
    leader.send_signal(signal.SIGINT)
    printed, _ = leader.communicate(timeout=60)
    assert leader.returncode == 130, printed
    assert on_ray.states() == ["waiting"] * 3
    assert {record.read(each).status for each in folders} == {"interrupted"}
    assert all(checkpoint.newest(each) for each in folders)
    until(lambda: not on_ray.ray.workers(), "no worker is left")
    leader = on_ray.command()
    until(lambda: on_ray.states().count("running") == 2, "it goes on")
    until(lambda: [len(record.read(each).resumes) for each in folders] == [1, 1], "both runs go on")
    until(lambda: {record.read(each).status for each in folders} == {"running"}, "both runs go on")
    leader.kill()
    until(lambda: on_ray.states() == ["waiting"] * 3, "the workers give their trials back")
    until(lambda: not on_ray.ray.workers(), "no worker is left")
    on_ray.go()
    on_ray.assert_complete(on_ray.command())


@pytest.mark.slow
def test_a_lost_node_s_trial_goes_on_where_another_node_comes(on_ray: OnRay) -> None:
    leader = on_ray.command()
    where = {node_of(runner(folder).pid): folder for folder in on_ray.held(2, 2)}
    assert where.keys() == {"one", "two"}
    on_ray.ray.kill("two")
    number = next(
        each.number
        for each in on_ray.trials()
        if each.runs[-1:] == (where["two"].relative_to(on_ray.logs).as_posix(),)
    )
    until(lambda: on_ray.trials()[number].state == "waiting", "the lost trial waits again")
    on_ray.ray.start("three")
    until(lambda: lock.alive(where["two"]), "the run goes on", 120)
    assert node_of(runner(where["two"]).pid) == "three"
    on_ray.go()
    on_ray.assert_complete(leader)
    assert [len(record.read(where[each]).resumes) for each in ("one", "two")] == [0, 1]
