"""The rules of the compose files and Dockerfiles, read off what Compose makes of them."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from project import CHECKOUT, clean_environment

SERVICES = ("jupyter", "tensorboard")
PROFILES = ("head", "serve", "worker")
BY_PROFILE = ("head", "serve", "store", "worker")  # services that nothing but their profile starts
PRIVILEGES = {
    "privileged",
    "cap_add",
    "devices",
    "ipc",
    "pid",
    "uts",
    "cgroup",
    "network_mode",
    "userns_mode",
}
LOCKS = [
    path
    for where in ("*/requirements", "jupyter/trackers/*", "jupyter/torch/*")
    for path in sorted(CHECKOUT.glob(f"{where}.lock"))
]
TRACKERS = ("mlflow", "wandb")
TRACKER_NAMES = ("WANDB_", "MLFLOW_")  # of their variables
DOCKERFILES = sorted(CHECKOUT.glob("*/Dockerfile"))

pytestmark = pytest.mark.docker


def config(*files: str, **environment: str) -> dict[str, Any]:
    """Return what Compose reads in our files, with no .env."""
    names = [f"--file={CHECKOUT / name}" for name in files or ("docker-compose.yml",)]
    command = ["docker", "compose", "--env-file=/dev/null", *names, "config", "--format=json"]
    text = subprocess.check_output(command, env=clean_environment() | environment, text=True)
    return json.loads(text)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return config()


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The project with the services of every profile."""
    return config(COMPOSE_PROFILES=",".join(PROFILES))


@pytest.fixture(params=(*SERVICES, *BY_PROFILE))
def service(whole: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    return whole["services"][request.param]


def test_there_are_two_services_and_one_volume_and_others_only_by_their_profiles(project, whole):
    assert set(project["services"]) == set(SERVICES)
    assert set(project["volumes"]) == {"home"}
    assert set(whole["services"]) == {*SERVICES, *BY_PROFILE}
    assert set(whole["volumes"]) == {"home", "head"}


def test_ports_are_published_on_loopback_only(service):
    assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    names = ("docker-compose.yml", "docker-compose.share.yml")
    return config(*names, SHARE="lab.example.org", SHARE_PORT="8443", COMPOSE_PROFILES="serve")


def test_shared_the_door_alone_is_published_and_is_as_hardened_as_the_others(shared, project):
    assert set(shared["services"]) == {*SERVICES, "serve", "share"}
    door = shared["services"]["share"]
    assert [(port["published"], port["target"]) for port in door["ports"]] == [("8443", 8443), ("80", 8080)]
    assert not any("ports" in shared["services"][name] for name in (*SERVICES, "serve"))
    shown = shared["services"]["tensorboard"]["environment"]["TENSORBOARD_SHOWN"]
    assert shown == "https://lab.example.org:8443/tensorboard"
    hardening = ("user", "read_only", "cap_drop", "security_opt", "init", "restart", "logging", "pull_policy")
    for name in (*hardening, "healthcheck", "stop_grace_period"):
        assert door[name] == project["services"]["tensorboard"][name], name
    assert not PRIVILEGES & set(door) and 0 < door["pids_limit"] <= 4096
    assert {mount["target"] for mount in door["volumes"]} == {"/run/door", "/var/lib/share", "/tls"}
    assert not set(door["networks"]) & set(shared["services"]["tensorboard"]["networks"])


def test_sharing_changes_of_jupyterlab_its_port_its_settings_and_nothing_else(shared, project):
    before, after = project["services"]["jupyter"], shared["services"]["jupyter"]
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert differ == {"ports", "command", "environment", "volumes"}
    assert before["environment"].items() <= after["environment"].items()
    assert "--ip=127.0.0.1" in after["command"]


def test_ports_can_be_chosen():
    services = config(JUPYTER_PORT="9001", TENSORBOARD_PORT="9002")["services"]
    assert [services[name]["ports"][0]["published"] for name in SERVICES] == ["9001", "9002"]
    known = services["jupyter"]["environment"]  # where `trainlab doctor` looks in the container
    assert (known["JUPYTER_PORT"], known["TENSORBOARD_PORT"]) == ("9001", "9002")


def test_tensorboard_s_port_can_be_taken_away_and_jupyter_finds_it_all_the_same():
    services = config("docker-compose.yml", "docker-compose.door.yml", TENSORBOARD_PORT="off")["services"]
    assert not services["tensorboard"].get("ports")
    assert services["tensorboard"]["environment"]["TENSORBOARD_SHOWN"] == "8888/tensorboard"
    assert services["jupyter"]["environment"]["TENSORBOARD_AT"] == "tensorboard:6006"


def test_a_service_runs_as_the_caller_with_no_privileges(service):
    assert service["user"] == "1000:1000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not PRIVILEGES & set(service)


def test_the_user_comes_from_the_environment():
    services = config(TRAINLAB_UID="1234", TRAINLAB_GID="2345")["services"]
    assert {services[name]["user"] for name in SERVICES} == {"1234:2345"}


def test_memory_and_processes_have_limits(service):
    assert int(service["mem_limit"]) >= 2**30
    assert 0 < service["pids_limit"] <= 4096
    assert "/tmp" in service["tmpfs"][0] and "size=" in service["tmpfs"][0]


def test_limits_come_from_the_environment():
    chosen = {"JUPYTER_MEMORY": "3g", "JUPYTER_CPUS": "1.5", "JUPYTER_PIDS": "99", "JUPYTER_SHM": "64m"}
    jupyter = config(**chosen)["services"]["jupyter"]
    assert (int(jupyter["mem_limit"]), jupyter["cpus"], jupyter["pids_limit"]) == (3 * 2**30, 1.5, 99)
    assert int(jupyter["shm_size"]) == 64 * 2**20


def test_logs_of_the_engine_are_rotated(service):
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_a_service_is_watched_restarted_and_stopped_in_time(service):
    if service.get("ports"):
        assert service["healthcheck"]["test"]
        assert "start_interval" not in service["healthcheck"], "Docker Engine 20.10 does not know it"
        assert service["restart"] == "unless-stopped", "a limit can run out, and the port is then anybody's"
    else:
        assert service["restart"] == "on-failure", "a worker ends by itself when nothing is left"
    assert service["init"] is True
    assert service["stop_grace_period"] in (
        "10s",
        "30s",
        "5m0s",
    )  # more than what src/trainlab/run/grace.py allows


def test_a_missing_folder_is_never_made_by_the_engine(service):
    binds = [mount for mount in service.get("volumes", []) if mount["type"] == "bind"]
    assert binds or "store" in service["command"], "each other sees a folder of the host"
    assert not any(mount["bind"].get("create_host_path") for mount in binds)


def test_tensorboard_sees_the_logs_alone_and_only_reads_them(project):
    [mount] = project["services"]["tensorboard"]["volumes"]
    assert mount["source"].endswith("/logs")
    assert mount["read_only"] is True


def test_serve_sees_the_models_alone_and_only_reads_them(whole):
    [mount] = whole["services"]["serve"]["volumes"]
    assert mount["source"].endswith("/models")
    assert mount["read_only"] is True


def test_serve_has_the_port_and_the_token_that_the_settings_name():
    given = {"SERVE_PORT": "9004", "SERVE_TOKEN": "hush", "SERVE_MEMORY": "3g"}
    services = config(COMPOSE_PROFILES="serve", **given)["services"]
    (port,) = services["serve"]["ports"]
    assert (port["published"], port["target"]) == ("9004", 9004)
    assert services["serve"]["environment"] == {"SERVE_PORT": "9004", "SERVE_TOKEN": "hush"}
    assert int(services["serve"]["mem_limit"]) == 3 * 2**30
    plain = config(COMPOSE_PROFILES="serve")["services"]["serve"]
    assert plain["environment"]["SERVE_TOKEN"] == ""
    assert int(plain["mem_limit"]) == 2 * 2**30
    assert services["jupyter"]["environment"]["SERVE_AT"] == "serve:9004", "behind its login, too"
    others = [services["tensorboard"], services["serve"]["build"], services["jupyter"]["build"]]
    assert "hush" not in json.dumps(others)


def test_jupyter_writes_to_five_folders_of_the_project_and_its_home(project):
    mounts = project["services"]["jupyter"]["volumes"]
    writable = {mount["target"] for mount in mounts if not mount.get("read_only")}
    folders = {f"/workspace/{name}" for name in ("logs", "data", "models", "notebooks", "src")}
    assert writable == folders | {"/home/trainlab"}


def test_the_head_keeps_a_volume_of_its_own_and_sees_nothing_of_the_project_but_its_certificate():
    for given in ({}, {"HEAD_TLS": "/etc/mine"}):
        head = config(COMPOSE_PROFILES="head", **given)["services"]["head"]
        volume, certificate = head["volumes"]
        assert (volume["type"], volume["source"]) == ("volume", "head")
        assert certificate["source"] == given.get("HEAD_TLS", str(CHECKOUT / "head/tls"))
        assert certificate["read_only"] is True


def test_a_worker_is_jupyter_without_a_port_and_joins_the_head_that_the_settings_name():
    given = {
        "HEAD": "10.0.0.5:5433",
        "HEAD_PASSWORD": "hush",
        "WORKER_MEMORY": "3g",
        "PGSSLMODE": "verify-full",
    }
    services = config(COMPOSE_PROFILES="worker", **given)["services"]
    worker, jupyter = services["worker"], services["jupyter"]
    assert worker["command"] == ["trainlab", "worker", "--join", "10.0.0.5:5433", "--until-empty"]
    assert worker["environment"]["TRAINLAB_HEAD_PASSWORD"] == "hush"
    assert worker["environment"]["PGSSLMODE"] == "verify-full"
    assert worker["environment"].items() <= jupyter["environment"].items()
    for same in ("image", "volumes", "tmpfs", "user", "stop_grace_period"):
        assert worker[same] == jupyter[same]
    assert int(worker["mem_limit"]) == 3 * 2**30
    assert "hush" not in json.dumps(worker["command"])


def test_with_a_gpu_a_worker_has_it_too():
    files = ("docker-compose.yml", "docker-compose.gpu.yml")
    worker = config(*files, COMPOSE_PROFILES="worker")["services"]["worker"]
    assert worker["image"].endswith("-cuda")
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_the_head_listens_where_the_settings_say_and_its_password_is_empty_unless_given():
    given = {"HEAD_ADDRESS": "10.0.0.5", "HEAD_PORT": "9003", "HEAD_PASSWORD": "hush"}
    services = config(COMPOSE_PROFILES="head", **given)["services"]
    (port,) = services["head"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("10.0.0.5", "9003", 5432)
    assert services["head"]["environment"]["HEAD_PASSWORD"] == "hush"
    assert "hush" not in json.dumps([services["tensorboard"], services["head"]["build"]])
    assert config(COMPOSE_PROFILES="head")["services"]["head"]["environment"]["HEAD_PASSWORD"] == ""


def test_the_store_is_jupyter_s_image_with_nothing_of_the_host_at_the_head_s_address():
    given = {"HEAD_ADDRESS": "10.0.0.5", "HEAD_STORE_PORT": "9004", "HEAD_PASSWORD": "hush"}
    services = config(COMPOSE_PROFILES="head", **given)["services"]
    store = services["store"]
    (port,) = store["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("10.0.0.5", "9004", 29400)
    assert store["image"] == services["jupyter"]["image"]
    assert not {"volumes", "environment", "build"} & set(store)
    cuda = config("docker-compose.yml", "docker-compose.gpu.yml", COMPOSE_PROFILES="head")["services"][
        "store"
    ]
    assert cuda["image"].endswith("-cuda") and "deploy" not in cuda


def test_the_token_is_empty_unless_given(project):
    assert project["services"]["jupyter"]["environment"]["JUPYTER_TOKEN"] == ""
    assert "JUPYTER_TOKEN" not in project["services"]["tensorboard"]["environment"]


def test_whom_to_tell_is_known_to_jupyter_s_service_alone():
    services = config(NOTIFY="ntfy://a-secret-topic", COMPOSE_PROFILES="head,serve,worker")["services"]
    assert services["jupyter"]["environment"]["NOTIFY"] == "ntfy://a-secret-topic"
    others = {name: each for name, each in services.items() if name != "jupyter"}
    assert len(others) == 5
    assert "a-secret-topic" not in json.dumps(others)


def test_what_trackers_need_to_know_is_taken_from_the_environment_and_only_where_it_is_set(project):
    names = [name for name in project["services"]["jupyter"]["environment"] if name.startswith(TRACKER_NAMES)]
    assert {"WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"} <= set(names)
    for name in names:
        assert project["services"]["jupyter"]["environment"][name] is None
        services = config(**{name: "given"})["services"]
        assert services["jupyter"]["environment"][name] == "given"
        assert name not in services["tensorboard"]["environment"]


def test_trackers_are_installed_only_where_they_are_chosen(project):
    assert jupyter_args(project)["TRACKERS"] == ""
    assert jupyter_args(config(TRACKERS="wandb,mlflow"))["TRACKERS"] == "wandb,mlflow"


def test_no_name_is_fixed_so_that_two_clones_can_run(service):
    assert "container_name" not in service
    images = [config(COMPOSE_PROJECT_NAME=name)["services"] for name in ("one", "a_-b_")]
    assert [each["jupyter"]["image"] for each in images] == [
        "trainlab-jupyter:one-cpu",
        "trainlab-jupyter:a_-b_-cpu",
    ]
    assert [each["tensorboard"]["image"] for each in images] == [
        "trainlab-tensorboard:one",
        "trainlab-tensorboard:a_-b_",
    ]
    assert not re.search(r"^name:", (CHECKOUT / "docker-compose.yml").read_text(), re.MULTILINE)


def test_the_gpu_file_adds_the_gpu_and_the_cuda_build_and_nothing_else(project):
    both = config("docker-compose.yml", "docker-compose.gpu.yml")
    jupyter = both["services"]["jupyter"]
    [device] = jupyter.pop("deploy")["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert jupyter.pop("image") == f"trainlab-jupyter:{both['name']}-cuda"
    cuda = {"TORCH_BUILD": "", "TORCH_INDEX": ""}
    assert jupyter["build"].pop("args") == jupyter_args(project) | cuda
    assert both["secrets"].pop("torch_index")["environment"] == "TORCH_GPU_INDEX"
    plain = json.loads(json.dumps(project))
    del (
        plain["secrets"]["torch_index"],
        plain["services"]["jupyter"]["image"],
        plain["services"]["jupyter"]["build"]["args"],
    )
    assert both == plain


def jupyter_args(project: dict[str, Any]) -> dict[str, str]:
    return project["services"]["jupyter"]["build"]["args"]


def test_the_cuda_build_can_be_chosen():
    files = ("docker-compose.yml", "docker-compose.gpu.yml")
    assert jupyter_args(config(*files))["TORCH_BUILD"] == ""
    assert jupyter_args(config(*files, TORCH_GPU_BUILD="cu126"))["TORCH_BUILD"] == "cu126"


def test_the_password_of_a_package_index_reaches_a_build_as_a_secret_and_no_argument_that_an_image_keeps():
    index = "https://me:hush@mirror.example/simple"
    whole = config(PIP_INDEX_URL=index, TORCH_INDEX=index, COMPOSE_PROFILES="serve")
    assert "hush" not in json.dumps(whole["services"])
    assert {name: each["environment"] for name, each in whole["secrets"].items()} == {
        "pip_index_url": "PIP_INDEX_URL",
        "torch_index": "TORCH_INDEX",
    }
    for name in (*SERVICES, "serve"):
        mounted = {each["source"] for each in whole["services"][name]["build"]["secrets"]}
        text = (CHECKOUT / name / "Dockerfile").read_text()
        assert mounted == set(re.findall(r"type=secret,id=(\w+)", text))
        assert not re.search(r"^ARG \w*PIP_INDEX", text, re.MULTILINE)


def test_the_base_image_can_be_pinned_by_its_digest():
    base = f"debian:bookworm-slim@sha256:{'0' * 64}"
    services = config(BASE_IMAGE=base, COMPOSE_PROFILES="head,serve")["services"]
    built = [each["build"]["args"]["BASE_IMAGE"] for each in services.values() if "build" in each]
    assert len(built) == 4  # the store of trainings has the image of jupyter
    assert set(built) == {base}


def test_the_example_names_every_variable_and_holds_no_secret():
    files = "".join(path.read_text() for path in CHECKOUT.glob("docker-compose*.yml"))
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", files))
    used |= dict.fromkeys(re.findall(r"^ +([A-Z_]+):$", files, re.MULTILINE), "")  # passed on where set
    used |= dict.fromkeys(re.findall(r"\{environment: (\w+)\}", files), "")  # secrets of a build
    example = dict(re.findall(r"^#(\w+)=(.*)$", (CHECKOUT / ".env.example").read_text(), re.MULTILINE))
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "IMAGE_REGISTRY"):  # Compose's own, and make's
        example.pop(name)
    assert example == used
    assert {example[name] for name in ("JUPYTER_TOKEN", "NOTIFY", "WANDB_API_KEY")} == {""}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_lock_file_has_a_hash_for_each_package_and_no_index(lock):
    text = lock.read_text()
    packages = re.findall(r"^[a-z0-9][^\n]*==(?:[^\n]*\\\n)+[^\n]*", text, re.MULTILINE)
    assert packages
    assert len(packages) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE))
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text and "index-url" not in text


def test_every_tracker_is_an_extra_of_the_package_with_a_lock_file():
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locks = {path.stem for path in CHECKOUT.glob("jupyter/trackers/*")}
    assert set(TRACKERS) == locks <= set(extras)
    in_the_image = locked(CHECKOUT / "jupyter/requirements.lock")
    for name in TRACKERS:
        versions = {**in_the_image, **locked(CHECKOUT / f"jupyter/trackers/{name}.lock")}
        assert {re.split("[<>=]", each)[0] for each in extras[name]} <= set(versions)


def test_no_two_lock_files_name_different_versions_of_a_package():
    known: dict[str, str] = {}
    for lock in LOCKS:
        for package, version in locked(lock).items():
            public = version.removesuffix("+cpu")  # torch's two builds
            assert known.setdefault(package, public) == public, (lock, package)


def test_the_lock_file_of_a_tracker_holds_nothing_that_the_image_has_already():
    present = locked(CHECKOUT / "jupyter/requirements.lock").keys()
    for name in TRACKERS:
        assert not present & locked(CHECKOUT / f"jupyter/trackers/{name}.lock").keys()


def locked(path: Path) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_installs_from_the_lock_names_no_address_and_is_not_root(dockerfile):
    text = dockerfile.read_text()
    assert "--require-hashes" in text or not re.search(r"\bpip3? ", text)
    assert "://" not in text
    assert not text.startswith("# syntax"), "it would ask an image registry"
    assert re.findall(r"^USER (.*)", text, re.MULTILINE)[-1] == "1000"


def test_the_locks_of_torch_hold_one_version_and_all_of_cuda():
    cuda = locked(CHECKOUT / "jupyter/torch/cuda.lock")
    assert locked(CHECKOUT / "jupyter/torch/cpu.lock") == {"torch": f"{cuda['torch']}+cpu"}
    assert {"triton", "nvidia-cublas"} <= cuda.keys()
    assert not cuda.keys() & locked(CHECKOUT / "jupyter/requirements.lock").keys()
