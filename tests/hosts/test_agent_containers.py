"""Two containers as hosts and a third that holds the store, on a bridge network; and their faults."""

from __future__ import annotations

import itertools
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import own
from project import CHECKOUT, own_images
from training_hosts import DEADLINE, Training
from waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

# Whoever records the run writes down at each step that it does: which host, which process
SCRIPT = """
import ddp_work, secrets, socket; from pathlib import Path
me = f"{socket.gethostname()} {secrets.token_hex(4)}"  # no process number: a new container has the same ones
def alive(module):
    if module.global_rank == 0:
        with open("/logs/alive", "a") as file:
            file.write(f"{me}\\n")
settings = dict(epochs=1000, checkpoint_every="20", num_workers=0)
ddp_work.train(Path("/logs"), 1, alive, data=ddp_work.Forever(), **settings)
"""


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout.strip()


class Network(Training):
    """Containers that see one folder of runs, and each other by their names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "logs")
        self.folder, self.name = folder, f"trainlab-hosts-{uuid.uuid4().hex[:8]}"
        self.started: list[str] = []
        self.logs.mkdir()
        (folder / "mine.py").write_text(SCRIPT)
        own(self.logs)
        docker("network", "create", self.name)

    def start(self, name: str, *words: str) -> None:
        """Start a command of trainlab's in a container of this name, in place of the one before."""
        docker("rm", "--force", f"{self.name}-{name}", check=False)
        mounts = {"logs": "/logs", "mine.py": "/code/mine.py:ro"}
        volumes = [f"--volume={self.folder / here}:{there}" for here, there in mounts.items()]
        volumes += [f"--volume={CHECKOUT}/{each}:/{each}:ro" for each in ("src", "tests/support")]
        paths = "/src:/tests/support"
        settings = {"TRAINLAB_LOGS": "/logs", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        docker(
            *("run", "--detach", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *(f"--name={self.name}-{name}", f"--hostname={name}", f"--network={self.name}"),
            *(f"--network-alias={name}", "--workdir=/code", "--entrypoint=trainlab", *volumes),
            *(f"--env={key}={value}" for key, value in settings.items()),
            *(own_images()["jupyter"], *words),
        )
        self.started.append(name)

    def store(self) -> None:
        self.start("head", "store", "--address", "0.0.0.0")
        until(lambda: "store: " in self.printed("head"), "the store serves", DEADLINE)

    def host(self, name: str) -> None:
        self.start(name, "run", "mine.py", "--nodes", "1:2", "--join", "head", "--name", "big")

    def kill(self, name: str) -> None:
        docker("kill", f"{self.name}-{name}")

    def cut(self, name: str) -> None:
        docker("network", "disconnect", self.name, f"{self.name}-{name}")

    def heal(self, name: str) -> None:
        docker("network", "connect", "--alias", name, self.name, f"{self.name}-{name}")

    def stop(self) -> None:
        """Stop both hosts as somebody does who types Ctrl-C at each."""
        for name in ("one", "two"):
            docker("stop", "--time", "60", f"{self.name}-{name}")
        known = self.record()
        assert (known["status"], known["reason"]) == ("interrupted", "SIGTERM")

    def assert_whole(self) -> None:
        """Assert that each step was recorded once, and by one process at a time."""
        gaps = {second - first for first, second in itertools.pairwise(self.steps())}
        assert gaps == {10}, "each step once, and none is missing"
        writers = [line for line, _ in itertools.groupby((self.logs / "alive").read_text().splitlines())]
        assert len(writers) == len(set(writers)), writers

    def printed(self, name: str) -> str:
        done = subprocess.run(
            ["docker", "logs", f"{self.name}-{name}"], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def end(self) -> None:
        docker("rm", "--force", "--volumes", *(f"{self.name}-{each}" for each in set(self.started)))
        docker("network", "rm", self.name)


@pytest.fixture
def network(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Network]:
    made = Network(tmp_path)
    failed = request.session.testsfailed
    try:
        yield made
    finally:
        try:
            for name in set(made.started) if request.session.testsfailed > failed else ():
                print(f"--- {name}\n{made.printed(name)}")
        finally:
            made.end()


def test_whichever_container_is_killed_the_training_goes_on_and_takes_it_back(network: Network) -> None:
    network.store()
    for name in ("one", "two"):
        network.host(name)
    network.until_saved(3)
    first = until(lambda: network.record()["host"], "a first process", DEADLINE)
    assert first in ("one", "two")
    for lost in ({"one", "two"} - {first}).pop(), first:  # the second process's host, then the first one's
        seen = len(network.record()["resumes"])
        network.kill(lost)
        assert network.until_resumed(seen)["step"] >= 20
        network.until_saved()
        assert network.record()["host"] != lost
        seen = len(network.record()["resumes"])
        network.host(lost)
        network.until_resumed(seen)
        network.until_saved(2)
    seen = len(network.record()["resumes"])
    network.kill("head")
    network.store()
    network.until_resumed(seen)
    network.until_saved(2)
    network.stop()
    network.assert_whole()


def test_whichever_container_is_cut_off_the_training_goes_on_and_it_joins_again(network: Network) -> None:
    network.store()
    for name in ("one", "two"):
        network.host(name)
    network.until_saved(3)
    first = until(lambda: network.record()["host"], "a first process", DEADLINE)
    for lost in first, ({"one", "two"} - {first}).pop():
        (other,) = {"one", "two"} - {lost}
        seen = len(network.record()["resumes"])
        network.cut(lost)
        network.until_resumed(seen)
        network.until_saved(2)
        assert network.record()["host"] == other
        seen = len(network.record()["resumes"])
        network.heal(lost)
        network.until_resumed(seen)
        network.until_saved(2)
        said = [line for line in network.printed(lost).splitlines() if line.startswith("process ")]
        assert said[-1].endswith("of 2, in 2 hosts")
    network.stop()
    network.assert_whole()


def test_a_host_that_trains_alone_and_is_cut_off_ends_before_another_goes_on(network: Network) -> None:
    network.store()
    network.host("one")
    network.until_saved(3)
    network.cut("one")
    seen = len(network.record()["resumes"])
    network.host("two")
    network.until_resumed(seen)
    network.until_saved(2)
    assert network.record()["host"] == "two"
    seen = len(network.record()["resumes"])
    network.heal("one")
    network.until_resumed(seen)
    network.until_saved(2)
    network.stop()
    network.assert_whole()
