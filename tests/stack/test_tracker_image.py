"""Trackers besides TensorBoard are put into the image by a build argument."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, clean_environment, own_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAG = f"trainlab-jupyter:trackers-{os.getpid()}"
LOG_TO_SQLITE = """
import importlib.util
import mlflow
mlflow.set_tracking_uri("sqlite:////tmp/runs.db")
with mlflow.start_run() as run:
    mlflow.log_metric("val/loss", 0.5)
print(mlflow.get_run(run.info.run_id).data.metrics, importlib.util.find_spec("wandb"))
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def tagged(tmp_path: Path) -> Iterator[Path]:
    """Return a compose file that gives the image another name; remove that image at the end."""
    own_images()  # whose layers it starts from
    path = tmp_path / "tagged.yml"
    path.write_text(f"services: {{jupyter: {{image: '{TAG}'}}}}\n")
    yield path
    subprocess.run(["docker", "image", "rm", "--force", TAG], check=False, capture_output=True)


def build(tagged: Path, trackers: str) -> subprocess.CompletedProcess[str]:
    """Build the image of this checkout with trackers."""
    files = ["--env-file=/dev/null", f"--file={CHECKOUT / 'docker-compose.yml'}", f"--file={tagged}"]
    return subprocess.run(
        ["docker", "compose", *files, "--progress=plain", "build", "jupyter"],
        env=clean_environment() | {"TRACKERS": trackers},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_a_chosen_tracker_works_in_the_image_and_no_other_is_there(tagged):
    done = build(tagged, "mlflow")
    assert done.returncode == 0, done.stdout
    hardened = ["--read-only", "--tmpfs=/tmp", "--tmpfs=/home/trainlab", "--network=none", "--user=1000"]
    python = ["docker", "run", "--rm", *hardened, "--entrypoint=python", TAG, "-c", LOG_TO_SQLITE]
    printed = subprocess.check_output(python, text=True)
    assert "{'val/loss': 0.5} None\n" in printed


def test_an_unknown_tracker_ends_the_build_with_those_that_there_are(tagged):
    done = build(tagged, "nonsense,wandb")
    assert done.returncode != 0
    assert "'nonsense' is none of mlflow wandb" in done.stdout
