"""Images by way of a registry: what `make publish` pushes, and when `make up` pulls it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_machine import Machine
from project import CHECKOUT, Project, clean_environment, copy_checkout, own_images, status_of
from waiting import until

REGISTRY = "images.example/lab"
TENSORBOARD, JUPYTER = f"{REGISTRY}/trainlab-tensorboard", f"{REGISTRY}/trainlab-jupyter"


def pulls(machine: Machine) -> list[str]:
    return re.findall(r"^pull .*?(\S+)$", machine.calls(), re.M)


def version() -> str:
    found = re.search(r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.M)
    assert found
    return found[1]


def inputs(machine: Machine, service: str) -> str:
    """Return the digest that the machine's own folder has for a service's image."""
    script = """gpu=0 project=any; fail() { exit 2; }
        for each in choice settings images; do . stack/$each.sh; done; image_inputs "$0" """
    environment = clean_environment() | machine.environment
    return subprocess.check_output(
        ["bash", "-c", script, service], cwd=machine.folder, env=environment, text=True
    ).strip()


@pytest.fixture
def registry(machine: Machine) -> Callable[[str], None]:
    """Return what puts images into the machine's registry: those of its folder, but for changed inputs."""

    def put(of: str = "") -> None:
        for service in ("tensorboard", "jupyter", "serve"):
            (machine.tools / f"inputs-{service}").write_text(of or inputs(machine, service))

    return put


def test_without_a_registry_nothing_is_pulled(machine: Machine) -> None:
    machine.make("up")
    assert machine.built() == 1
    assert pulls(machine) == []


def test_images_of_this_version_and_these_files_are_pulled_and_not_built(machine: Machine, registry) -> None:
    registry()
    said = machine.make("up", IMAGE_REGISTRY=REGISTRY).stdout
    assert machine.built() == 0
    assert pulls(machine) == [f"{TENSORBOARD}:{version()}", f"{JUPYTER}:{version()}-cpu"]
    name = machine.settings["COMPOSE_PROJECT_NAME"]
    for source, own in (
        (pulls(machine)[0], f"tensorboard:{name}"),
        (pulls(machine)[1], f"jupyter:{name}-cpu"),
    ):
        assert f"pulling {source}" in said
        assert f"tag {source} trainlab-{own}" in machine.calls()
    machine.make("up", IMAGE_REGISTRY=REGISTRY)
    assert len(pulls(machine)) == 2, "once"


def test_the_image_of_the_service_is_pulled_by_the_first_that_serves(machine: Machine, registry) -> None:
    registry()
    machine.make("up", IMAGE_REGISTRY=REGISTRY)
    assert len(pulls(machine)) == 2, "who serves nothing needs none"
    machine.make("serve", "RUN=last", IMAGE_REGISTRY=REGISTRY)
    machine.make("serve", "RUN=last", IMAGE_REGISTRY=REGISTRY)
    source = f"{REGISTRY}/trainlab-serve:{version()}"
    assert pulls(machine)[2:] == [source]
    assert f"tag {source} trainlab-serve:{machine.settings['COMPOSE_PROJECT_NAME']}" in machine.calls()
    assert "compose build" not in machine.calls()


def test_a_registry_that_does_not_answer_is_one_line_and_a_build(machine: Machine) -> None:
    said = machine.make("up", IMAGE_REGISTRY=REGISTRY).stdout
    assert machine.built() == 1
    (line,) = [each for each in said.splitlines() if "was not pulled" in each]
    assert line == f"{TENSORBOARD}:{version()} was not pulled: nobody answers. Building in its place"


def test_an_image_that_was_made_from_other_files_is_not_taken(machine: Machine, registry) -> None:
    registry(of="0" * 64)
    said = machine.make("up", IMAGE_REGISTRY=REGISTRY).stdout
    assert machine.built() == 1
    assert "was made from other files than this folder's" in said
    assert "\ntag " not in machine.calls()
    assert f"image rm {TENSORBOARD}:{version()}" in machine.calls(), "what is of no use is not kept"


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"TRACKERS": "wandb"}, ["tensorboard", "serve"]),
        ({"BASE_IMAGE": "debian:trixie-slim"}, []),
        ({"JUPYTER_PORT": "8899"}, ["tensorboard", "jupyter", "serve"]),
    ],
)
def test_what_changes_an_image_changes_its_digest_and_nothing_else_does(
    machine: Machine, change: dict[str, str], alike: list[str]
) -> None:
    before = {service: inputs(machine, service) for service in ("tensorboard", "jupyter", "serve")}
    assert len({*before.values()}) == 3
    machine.environment |= change
    assert [service for service in before if inputs(machine, service) == before[service]] == alike


def test_the_digest_is_that_of_every_clone_and_of_an_own_mount_but_not_of_an_own_way_to_build(
    machine: Machine, tmp_path: Path
) -> None:
    before = inputs(machine, "jupyter")
    machine.folder = Path(shutil.move(machine.folder, tmp_path / "elsewhere"))
    (machine.folder / "jupyter/__pycache__").mkdir()
    (machine.folder / "jupyter/__pycache__/door.pyc").touch()
    override = machine.folder / "docker-compose.override.yml"
    override.write_text("services: {jupyter: {volumes: ['/data:/data']}}\n")
    assert inputs(machine, "jupyter") == before
    override.write_text("services: {jupyter: {build: {args: {BASE_IMAGE: other}}}}\n")
    assert inputs(machine, "jupyter") != before


def test_code_counts_for_the_image_that_holds_it_alone(machine: Machine) -> None:
    before = {service: inputs(machine, service) for service in ("tensorboard", "jupyter", "serve")}
    with (machine.folder / "src/trainlab/serving/texts.py").open("a") as code:
        code.write("# changed\n")
    after = {service: inputs(machine, service) for service in before}
    assert {service for service in before if before[service] != after[service]} == {"serve"}
    shutil.rmtree(machine.folder / "src/trainlab")  # a lab has trainlab as a wheel
    wheel = machine.folder / "jupyter/wheels/trainlab-9-py3-none-any.whl"
    wheel.write_text("one")
    of_one = inputs(machine, "serve")
    wheel.write_text("another")
    assert inputs(machine, "serve") != of_one


@pytest.mark.parametrize(
    "value", ["https://images.example/lab", "images.example/lab:1", "-v", "a b", "Host/Lab"]
)
def test_what_is_no_address_of_a_registry_is_refused(machine: Machine, value: str) -> None:
    for verb, name in (("up", "IMAGE_REGISTRY"), ("publish", "REGISTRY")):
        done = machine.make(verb, check=False, **{name: value})
        assert done.returncode == 2
        assert f"{name}={value} is not where images lie" in done.stdout
    assert pulls(machine) == []
    assert "buildx bake" not in machine.calls()


def test_nothing_is_pushed_without_a_registry_to_push_to(machine: Machine) -> None:
    done = machine.make("publish", check=False)
    assert done.returncode == 2
    assert "make publish REGISTRY=ghcr.io/somebody" in done.stdout
    assert "buildx bake" not in machine.calls()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"PLATFORMS": "linux/riscv64"}, "PLATFORMS=linux/riscv64 is unknown"),
        ({"ARGS": "notebook"}, "there is no image 'notebook'"),
        ({"ENGINE": "local"}, "images are built and pushed by Docker"),
    ],
)
def test_publishing_refuses_what_it_cannot_do_before_it_builds(
    machine: Machine, arguments: dict[str, str], word: str
) -> None:
    done = machine.make("publish", f"REGISTRY={REGISTRY}", check=False, **arguments)
    assert done.returncode == 2
    assert word in done.stdout
    assert "buildx bake" not in machine.calls()


def test_publishing_names_each_image_by_the_project_its_version_and_its_processor(machine: Machine) -> None:
    both = {"PLATFORMS": "linux/amd64,linux/arm64", "REGISTRY": REGISTRY}
    said = machine.make("publish", **both).stdout
    (bake,) = re.findall("^buildx bake .*", machine.calls(), re.M)
    assert bake.endswith(
        "--push jupyter-amd64 jupyter-amd64-bill jupyter-arm64 jupyter-arm64-bill"
        " tensorboard-amd64 tensorboard-amd64-bill tensorboard-arm64 tensorboard-arm64-bill"
        " serve-amd64 serve-amd64-bill serve-arm64 serve-arm64-bill"
    )
    joined = re.findall("^buildx imagetools create --tag (.*)", machine.calls(), re.M)
    assert joined == [
        f"{name}:{tag} {name}:{tag}-amd64 {name}:{tag}-arm64"
        for name, tag in (
            (JUPYTER, f"{version()}-cpu"),
            (TENSORBOARD, version()),
            (f"{REGISTRY}/trainlab-serve", version()),
        )
    ]
    assert f"IMAGE_REGISTRY={REGISTRY} in .env" in said
    assert "git names no commit here" in said


def test_the_label_of_a_changed_tree_says_so_and_holds_no_password(machine: Machine) -> None:
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-C", str(machine.folder)]
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=clone"],
        ["remote", "add", "origin", "https://me:secret@git.example/lab.git"],
    ):
        subprocess.run([*git, *command], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    machine.make("publish", REGISTRY=REGISTRY)
    clean = (machine.tools / "described").read_text()
    assert f"REVISION={head}\n" in clean
    assert "SOURCE=https://git.example/lab.git\n" in clean
    (machine.folder / "new").touch()
    assert f"the label says {head}-dirty" in machine.make("publish", REGISTRY=REGISTRY).stdout
    assert f"REVISION={head}-dirty\n" in (machine.tools / "described").read_text()


@pytest.mark.docker
def test_the_bake_file_has_each_image_for_each_processor_with_compose_s_own_arguments() -> None:
    files = ["--file=docker-compose.yml", "--file=docker-bake.hcl"]
    text = subprocess.check_output(
        ["docker", "buildx", "bake", *files, "--print"],
        cwd=CHECKOUT,
        env=clean_environment() | {"REGISTRY": REGISTRY, "VERSION": "1.2", "BASE_IMAGE": "debian:12"},
        stderr=subprocess.DEVNULL,
        text=True,
    )
    targets = json.loads(text)["target"]
    pairs = {
        (service, arch) for service in ("jupyter", "tensorboard", "serve") for arch in ("amd64", "arm64")
    }
    assert set(targets) == {f"{service}-{arch}{bill}" for service, arch in pairs for bill in ("", "-bill")}
    for service, arch in pairs:
        target = targets[f"{service}-{arch}"]
        assert target["platforms"] == [f"linux/{arch}"] == targets[f"{service}-{arch}-bill"]["platforms"]
        assert target["args"]["BASE_IMAGE"] == "debian:12"
        assert "id=pip_index_url,env=PIP_INDEX_URL" in target["secret"], "no address in a build argument"
    assert targets["tensorboard-arm64"]["tags"] == [f"{TENSORBOARD}:1.2-arm64"]


SMALL_JUPYTER = """FROM {base}
USER 0
RUN printf '#!/bin/sh\\n' >/usr/local/bin/health && chmod 755 /usr/local/bin/health
ENTRYPOINT ["sleep", "900"]
"""


@pytest.fixture
def real_registry(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run Debian's registry on this machine; yield its address, and what ends it."""
    port = free_port()
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\nlog: {{level: error}}\n'
    )
    server = subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "registry.yml"], stdout=subprocess.DEVNULL
    )
    until(lambda: status_of(f"http://127.0.0.1:{port}/v2/") == 200, "a registry", 20)

    def end() -> None:
        server.send_signal(signal.SIGKILL)
        server.wait()

    yield f"127.0.0.1:{port}/lab", end
    end()


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("docker-registry"), reason="no docker-registry (Debian's package) here")
def test_a_fresh_copy_pulls_what_was_published_and_builds_when_the_registry_is_gone(
    tmp_path: Path, free_port: Callable[[], int], real_registry: tuple[str, Callable[[], None]]
) -> None:
    """TensorBoard's image is the real one, JupyterLab's a small one in its place: 1.7 GB take minutes."""
    registry, end = real_registry
    own = own_images()["tensorboard"]
    first = Project(copy_checkout(tmp_path / "first"), {"ENGINE": "docker", "GPU": "0"})
    (first.folder / "jupyter/Dockerfile").write_text(SMALL_JUPYTER.format(base=own))
    second = Project(
        Path(shutil.copytree(first.folder, tmp_path / "second")),
        first.environment
        | {
            "IMAGE_REGISTRY": registry,
            "JUPYTER_PORT": str(free_port()),
            "TENSORBOARD_PORT": str(free_port()),
        },
    )
    first.make("publish", f"REGISTRY={registry}")
    inspect = ["docker", "buildx", "imagetools", "inspect", f"{registry}/trainlab-tensorboard:{version()}"]
    labels = json.loads(subprocess.check_output([*inspect, "--format={{json .Image}}"]))["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.revision"] == "unknown"
    bill = f"{registry}/trainlab-tensorboard:{version()}-amd64.sbom"
    assert "pkg:pypi/tensorboard@" in file_of_image(bill, "/sbom.cdx.json")
    try:
        said = second.make("up").stdout
        assert "building" not in said
        assert status_of(f"{second.tensorboard}/data/environment") == 200
        second.make("clean", YES="1")
        end()
        said = second.make("up").stdout
        assert said.count("was not pulled") == said.count("building the images") == 1
    finally:
        second.make("clean", check=False, YES="1")
        subprocess.run(["docker", "image", "rm", "--force", bill], check=False, capture_output=True)


def file_of_image(image: str, path: str) -> str:
    """Return a file of an image that has no program in it."""
    container = subprocess.check_output(["docker", "create", image, "none"], text=True).strip()
    try:
        return subprocess.check_output(["docker", "cp", f"{container}:{path}", "-"], text=True)
    finally:
        subprocess.run(["docker", "rm", container], check=True, capture_output=True)
