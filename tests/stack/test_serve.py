"""The service of exported runs: what `make serve` asks, refuses and says, and the service on both engines."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tiny_models
from containers import USER, own, started
from project import Project, clean_environment, own_image, own_images, status_of
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        "trainlab serve --choose -- first second",
        "compose build serve",
        "compose up --detach --no-deps --no-build serve",
        "ready.py",
    ]
    assert f"Serving      http://127.0.0.1:{serving.environment['SERVE_PORT']}/\n" in said
    assert "             nearest      first second\n" in said, "what the service says of itself"
    assert "compose run --rm --no-deps --no-TTY jupyter" in serving.calls(), "no JupyterLab is started for it"
    assert "compose up --detach --wait" not in serving.calls()


def test_a_service_that_runs_is_told_to_read_anew_and_is_not_built_again(serving: Machine) -> None:
    serving.make("serve", "RUN=first")
    before = len(asked(serving))
    serving.make("serve", "RUN=second")
    assert asked(serving)[before:] == [
        "trainlab serve --choose -- second",
        "compose up --detach --no-deps --no-build serve",
        "ready.py 1",
    ]


def test_in_a_shared_stack_it_has_no_port_and_is_shown_at_the_one_address(serving: Machine) -> None:
    shared = {"SHARE_PASSWORD_HASH": "argon2:a-hash", "SHARE_PORT": "18443", "SERVE_TOKEN": "a-token"}
    address = "Serving      https://lab.example.org:18443/serve/\n"
    with socket.create_server(("127.0.0.1", int(serving.environment["SERVE_PORT"]))):
        serving.make("up", "SHARE=lab.example.org", **shared)
        said = serving.make("serve", "RUN=first", **shared).stdout
        assert address in said and "SERVE_TOKEN" not in said and "make up" not in said
        assert re.search(rf"serve +healthy\n(.*\n)*{address}", serving.make("status").stdout)
        serving.make("down")
        assert "open with the stack: `make up`" in serving.make("serve", "RUN=first", **shared).stdout


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
    assert asked(serving) == ["trainlab serve --choose -- first"]


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


def test_a_service_that_does_not_say_what_it_serves_has_refused_nothing(serving: Machine) -> None:
    serving.make("serve", "RUN=first")
    (serving.tools / "hangs").touch()
    done = serving.make("serve", "RUN=second", check=False)
    assert done.returncode == 2
    assert "whether the service serves it is not known" in done.stdout
    assert "goes on being served" not in done.stdout
    assert (serving.folder / "models/served").read_text() == "second\n", "what was chosen"


def test_a_service_that_ends_again_and_again_is_started_anew_instead_of_told(serving: Machine) -> None:
    serving.make("serve", "RUN=first")
    before = len(asked(serving))
    (serving.tools / "unhealthy").touch()
    serving.make("serve", "RUN=second", check=False)
    assert asked(serving)[before:][:3] == [
        "trainlab serve --choose -- second",
        "compose rm --stop --force serve",
        "compose up --detach --no-deps --no-build serve",
    ]
    assert "ready.py 1" not in asked(serving)


def test_an_option_in_place_of_a_run_is_a_name_that_is_not_found(serving: Machine) -> None:
    serving.make("serve", "RUN=--help")
    assert asked(serving)[0] == "trainlab serve --choose -- --help"


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


TRAIN = """
from experiments.news.config import NewsConfig
from experiments.news.export import recipe
from experiments.news.train import train
from trainlab.serving.export import export
tiny = {"backbone": "data/tiny", "freeze": 0, "class_size": 4}
tiny |= {"triplets_per_item": 2, "max_tokens": 16, "epochs": 1}
for seed in (1, 2):
    run = train(NewsConfig(**tiny, seed=seed)).run
export(run, recipe(run))
"""


@dataclass
class Served:
    """A project with two runs of news; the first is served, and the second was exported before."""

    project: Project
    said: str = ""  # by `make serve`

    @property
    def folder(self) -> Path:
        return self.project.folder

    @property
    def runs(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("logs/news/*/run.json"))

    def serve(self, run: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        return self.project.make("serve", f"RUN={run}", check=check, **changes)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.project.environment['SERVE_PORT']}{path}"

    def nearest(self, **headers: str) -> dict[str, Any]:
        """Ask for the nearest of all items to a title; return the answer."""
        body = json.dumps({"title": "a storm brings rain", "k": 3}).encode()
        request = urllib.request.Request(self.url("/api/nearest"), body, headers)
        request.add_header("content-type", "application/json")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return json.load(answer)

    def ready(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url("/ready"), timeout=20) as answer:
            return json.load(answer)


def tiny_backbone(folder: Path) -> None:
    """Write a BERT of a few thousand weights that knows the sample's words, and what trains on it."""
    text = (folder / "data/sample/news.tsv").read_text().lower()
    (folder / "data/tiny").mkdir()
    tiny_models.bert(folder / "data/tiny", sorted({*re.findall(r"[a-z]+", text)}))
    (folder / "data/train.py").write_text(TRAIN)


@pytest.fixture(scope="module", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Served]:
    """A project whose first run, not exported yet, is served by an engine."""
    port = {"SERVE_PORT": str(free_port())}
    with ExitStack() as ends:
        if request.param == "local":
            project = request.getfixturevalue("local_project")
            project.environment |= port
        else:
            folder = tmp_path_factory.mktemp(f"serve{os.getpid()}-")
            clone = ends.enter_context(started(folder, free_port, **port))
            own_image("serve")  # whose layers are this one's
            project = Project(folder, {"ENGINE": "docker", "GPU": "0", **clone.environment})
        tiny_backbone(project.folder)
        if request.param == "docker":
            own(project.folder)
        project.make("shell", "ARGS=-c 'python data/train.py'", SHELL="/bin/bash")
        found = Served(project)
        found.said = found.serve(found.runs[0]).stdout
        yield found
        project.make("unserve")
        assert status_of(found.url("/health")) == 0
        if request.param == "docker":
            project.make("down")
            subprocess.run(
                ["docker", "image", "rm", "--force", f"trainlab-serve:{project.folder.name}"],
                check=False,
                capture_output=True,
            )


def bundle_of(served: Served, run: str) -> Path:
    (folder,) = served.folder.glob(f"models/{run}-*")
    return folder


@pytest.mark.slow
def test_a_run_is_exported_served_and_answers(served: Served) -> None:
    bundle = bundle_of(served, served.runs[0]).name
    assert served.url("/\n") in served.said
    assert f"             nearest      {bundle}\n" in served.said
    answer = served.nearest()
    assert (answer["bundle"], len(answer["items"])) == (bundle, 3)
    assert status_of(served.url("/")) == 200
    assert status_of(served.url("/"), Host="evil.example") != 200
    said = served.project.make("status").stdout
    assert re.search(r"^serve +healthy$", said, re.M)
    assert "serving at" in served.project.make("logs", "ARGS=serve").stdout


@pytest.mark.slow
def test_another_run_takes_over_and_no_request_is_lost(served: Served) -> None:
    answered, ended = [], threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                answered.append(served.nearest()["bundle"])
            except Exception as error:  # whatever it is, it was lost
                answered.append(repr(error))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for each in askers:
        each.start()
    try:
        said = served.serve(served.runs[1]).stdout
    finally:
        ended.set()
        for each in askers:
            each.join()
    old, new = (bundle_of(served, run).name for run in served.runs)
    assert new in said
    assert set(answered) == {old, new}
    assert answered[-1] == new
    print(f"{len(answered)} requests answered meanwhile")


@pytest.mark.slow
def test_a_damaged_bundle_is_refused_and_what_is_served_stays(served: Served) -> None:
    served.serve(served.runs[1])
    before, chosen = served.ready(), (served.folder / "models/served").read_bytes()
    network = bundle_of(served, served.runs[0]) / "text.onnx"
    whole = network.read_bytes()
    network.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = served.serve(served.runs[0], check=False)
    finally:
        network.write_bytes(whole)
    assert done.returncode == 2
    assert "text.onnx is damaged or was replaced" in done.stdout
    assert served.ready() == before
    assert served.nearest()["bundle"] == bundle_of(served, served.runs[1]).name
    assert (served.folder / "models/served").read_bytes() == chosen


@pytest.mark.slow
def test_with_a_token_nobody_is_answered_without_it(served: Served) -> None:
    said = served.serve(served.runs[1], SERVE_TOKEN="hush-hush").stdout
    try:
        assert "hush-hush" not in said + served.project.make("logs", "ARGS=serve").stdout
        assert status_of(served.url("/card")) == 401
        with pytest.raises(urllib.error.HTTPError, match="401"):
            served.nearest(Authorization="Bearer hush")
        assert len(served.nearest(Authorization="Bearer hush-hush")["items"]) == 3
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not any(b"hush-hush" in line for line in lines)
    finally:
        served.serve(served.runs[1])
    assert len(served.nearest()["items"]) == 3


DOCKER = pytest.mark.parametrize("served", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)


def inside(served: Served, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the service's container."""
    compose = ["docker", "compose", "--profile", "serve", "exec", "--no-TTY", "serve", *command]
    environment = clean_environment() | served.project.environment
    return subprocess.run(
        compose, cwd=served.folder, env=environment, check=False, capture_output=True, text=True
    )


def state(served: Served) -> dict[str, Any]:
    listed = ["docker", "ps", "--all", "--quiet"]
    for label in (f"project={served.folder.name}", "service=serve"):
        listed.append(f"--filter=label=com.docker.compose.{label}")
    (container,) = subprocess.check_output(listed, text=True).split()
    return json.loads(subprocess.check_output(["docker", "inspect", container]))[0]


@pytest.mark.slow
@DOCKER
def test_it_runs_hardened_on_loopback_alone_and_has_no_torch(served: Served) -> None:
    known = state(served)
    host = known["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert host["Memory"] == 2 << 30
    port = served.project.environment["SERVE_PORT"]
    assert {each["HostIp"] for each in host["PortBindings"][f"{port}/tcp"]} == {"127.0.0.1"}
    assert [(each["Destination"], each["RW"]) for each in known["Mounts"]] == [("/workspace/models", False)]
    told = inside(
        served, "bash", "-c", "grep -e ^Uid -e ^CapEff /proc/1/status; touch /x /workspace/models/x"
    )
    assert f"Uid:\t{USER}\t" in told.stdout
    assert "CapEff:\t0000000000000000" in told.stdout
    assert told.stderr.count("Read-only file system") == 2
    absent = ("torch", "transformers", "pandas", "pip", "huggingface_hub")
    code = f"from importlib.util import find_spec; print([each for each in {absent} if find_spec(each)])"
    assert inside(served, "python", "-c", code).stdout == "[]\n"


@pytest.mark.slow
@DOCKER
def test_after_another_run_took_over_it_still_comes_back_when_it_is_killed(served: Served) -> None:
    """An engine that is asked to signal a container takes it for stopped by hand."""
    served.serve(served.runs[0])
    served.serve(served.runs[1])
    before = state(served)
    assert before["RestartCount"] == 0, "it was told, not started anew"
    inside(served, "bash", "-c", "read -r server _ </proc/1/task/1/children; kill -KILL $server")
    until(lambda: state(served)["RestartCount"] == 1, "a restart")
    until(lambda: status_of(served.url("/ready")) == 200, "an answer")
    assert served.nearest()["bundle"] == bundle_of(served, served.runs[1]).name


@pytest.mark.slow
@DOCKER
def test_a_load_that_the_service_refuses_is_said_and_what_is_served_stays(served: Served) -> None:
    served.serve(served.runs[1])
    chosen = served.folder / "models/served"
    before = chosen.read_bytes()
    chosen.write_text("nowhere\n")
    try:
        done = inside(served, "python", "/opt/trainlab/ready.py", "1")
    finally:
        chosen.write_bytes(before)
    assert done.returncode == 2
    assert re.search("^error: .*nowhere is no bundle", done.stderr)
    assert served.nearest()["bundle"] == bundle_of(served, served.runs[1]).name


# MB over its base image that each may take. jupyter: 1,778 were measured, 117 of which export runs, so
# that `make serve` needs nothing else, and 19 are the board's, the door's and Apprise's. serve: 236, of which
# onnxruntime takes 78 and NumPy 56
@pytest.mark.docker
@pytest.mark.parametrize(("service", "most"), [("jupyter", 1780), ("serve", 300)])
def test_an_image_stays_as_small_as_it_is(service: str, most: int) -> None:
    image = own_image("serve") if service == "serve" else own_images()[service]
    base = os.environ.get("BASE_IMAGE", "debian:bookworm-slim")
    listed = ["docker", "image", "inspect", "--format={{.Size}}", base, image]
    below, whole = map(int, subprocess.check_output(listed, text=True).split())
    print(f"{service}: {(whole - below) / 1e6:,.0f} MB over its base")
    assert whole - below < most * 1e6
