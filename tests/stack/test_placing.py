"""What docs/hosts.md hands to Slurm and Kubernetes: read as these do, and by trainlab's own command line."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import typer.main
import yaml

from project import CHECKOUT
from trainlab import cli

PAGE = (CHECKOUT / "docs/hosts.md").read_text()


def block(language: str, word: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (text,) = [each for each in found if word in each]
    return text


def manifest() -> dict:
    return yaml.safe_load(block("yaml", "kind: Job"))


def assert_known(words: list[str]) -> None:
    """Assert that trainlab takes a command line: its command, and each of its options."""
    assert words[:2] == ["trainlab", "worker"]
    worker = typer.main.get_command(cli.app).commands["worker"]
    worker.make_context("worker", words[2:], resilient_parsing=False)


def test_the_script_for_slurm_is_one_and_starts_a_worker() -> None:
    text = block("text", "srun")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    (line,) = [each for each in text.splitlines() if each.startswith("srun ")]
    assert_known(shlex.split(line)[1:])


def test_the_manifest_fits_the_schema_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    validate(manifest(), "1.31", strict=True)
    with pytest.raises(Exception, match="parallel"):
        validate(manifest() | {"spec": {"parallel": 4}}, "1.31", strict=True)


def test_the_manifest_starts_a_worker_without_privileges_and_without_a_password_in_it() -> None:
    pod = manifest()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert_known(container["args"])
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["env"][0].keys() == {"name", "valueFrom"}
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


def test_a_line_for_a_host_without_docker_is_known() -> None:
    lines = re.findall(r"^    TRAINLAB_HEAD_PASSWORD=\S+ (trainlab worker .*)$", PAGE, re.MULTILINE)
    assert lines
    for line in lines:
        assert_known(shlex.split(line))
