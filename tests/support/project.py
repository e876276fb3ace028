"""A copy of this checkout in a folder of its own, driven with `make` as a person would."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

CHECKOUT = Path(__file__).parents[2]
FOREIGN = (
    "ARGS",
    "ENGINE",
    "GPU",
    "YES",
    "CI",
    "MAKE",
    "MFLAGS",
    "COMPOSE_",
    "JUPYTER_",
    "TENSORBOARD_",
    "SERVE_",
    "SHARE",
    "TRAINLAB_",
    "TRACKERS",
    "TORCH_",
    "IMAGE_REGISTRY",
    "HEAD",
    "WORKER_",
    "PGSSL",
    "REGISTRY",
    "PLATFORMS",
    "WANDB_",
    "MLFLOW_",
)


@dataclass
class Project:
    """A checkout: where it lies, and what its commands see in their environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def make(self, *arguments: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `make ARGUMENTS` with nobody at the keyboard; return its exit code and all it printed."""
        done = subprocess.run(
            ["make", "--no-print-directory", *arguments],
            cwd=self.folder,
            env=clean_environment() | self.environment | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `make ARGUMENTS` in a process group of its own, its output in a pipe, and go on."""
        return subprocess.Popen(
            ["make", *arguments],
            cwd=self.folder,
            env=clean_environment() | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def signalled(self, sent: signal.Signals, *arguments: str) -> tuple[int, str]:
        """Start make, signal its group once it prints "at work"; return its exit code and the rest."""
        make = self.start(*arguments)
        assert make.stdout
        while "at work" not in make.stdout.readline():
            assert make.poll() is None
        os.killpg(make.pid, sent)
        rest, _ = make.communicate(timeout=60)
        return make.returncode, rest

    def runs(self) -> list[dict[str, Any]]:
        """Return what `make runs` lists, from its standard output alone."""
        command = ["make", "--no-print-directory", "runs", "ARGS=--format json"]
        environment = clean_environment() | self.environment
        return json.loads(subprocess.check_output(command, cwd=self.folder, env=environment))

    @property
    def settings(self) -> dict[str, str]:
        """What .env says."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    @property
    def token(self) -> str:
        return self.settings["JUPYTER_TOKEN"]

    @property
    def jupyter(self) -> str:
        return f"http://127.0.0.1:{self.environment['JUPYTER_PORT']}"

    @property
    def tensorboard(self) -> str:
        return f"http://127.0.0.1:{self.environment['TENSORBOARD_PORT']}"


def clean_environment() -> dict[str, str]:
    """Return our environment without what would steer the copy's `make`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def copy_checkout(folder: Path) -> Path:
    """Copy what git would: tracked files and new ones, none that it ignores."""
    names = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, text=True
    )
    for name in names.splitlines():
        if (CHECKOUT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target)
    (folder / "notebooks").mkdir(exist_ok=True)
    folder.chmod(0o755)  # the containers' user looks into it
    return folder


def images(project: str) -> dict[str, str]:
    """Return the image of each service of a project."""
    return {"jupyter": f"trainlab-jupyter:{project}-cpu", "tensorboard": f"trainlab-tensorboard:{project}"}


def own_project() -> str:
    """Return the name of this checkout's own project."""
    script = "for each in choice settings project; do . stack/$each.sh; done; choose_project; echo $project"
    printed = subprocess.check_output(
        ["bash", "-c", script], cwd=CHECKOUT, env=clean_environment(), text=True
    )
    return printed.strip()


@functools.cache
def build() -> subprocess.CompletedProcess[str]:
    """Build this checkout's images: minutes the first time, seconds where the engine knows every layer."""
    return Project(CHECKOUT, {"ENGINE": "docker", "GPU": "0"}).make("build", check=False)


def own_images() -> dict[str, str]:
    """Return the image of each service of this checkout, built by the first test that asks."""
    assert build().returncode == 0, build().stdout
    return images(own_project())


@functools.cache
def own_image(service: str) -> str:
    """Return the image of a service of a profile, of this checkout, built by the first test that asks."""
    name = f"trainlab-{service}:{own_project()}"
    command = ["docker", "build", "--quiet", "--file", f"{service}/Dockerfile", "--tag", name, "."]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return name


def lend_images(project: str) -> None:
    """Give this checkout's images to a clone, too, under its project's name."""
    for names in zip(own_images().values(), images(project).values(), strict=True):
        subprocess.run(["docker", "tag", *names], check=True, capture_output=True)


def module(file: str) -> ModuleType:
    """Return what a file of the checkout defines that lies in no package."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, CHECKOUT / file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def status_of(url: str, **headers: str) -> int:
    """Return the HTTP status of a GET; 0 where nobody answers."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
