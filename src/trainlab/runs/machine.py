"""What a run ran on: hardware, packages, code version, command. Never an environment variable's value."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from trainlab import folders
from trainlab.runs import origin, secrets

PACKAGES = (
    *(
        "trainlab",
        "torch",
        "lightning",
        "transformers",
        "tokenizers",
        "datasets",
        "accelerate",
        "tensorboard",
    ),
    *("numpy", "pandas", "scikit-learn", "tensorflow", "keras", "jax", "flax", "tensorboardX"),
)
_GIB = 1024**3


def hardware() -> dict[str, Any]:
    """Return the CPU's model and usable cores, the memory in GiB, and the names of the GPUs."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / _GIB, 1),
        "gpus": _gpus(),
    }


def packages() -> dict[str, str]:
    """Return the versions of Python and of those packages that decide a result and are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def code_versions(code: Path | None) -> dict[str, Any]:
    """Return the versions of the code that ran, a file or a folder, and of trainlab; None where unknown."""
    return {"git": git(code) if code else None, "trainlab_git": git(origin.OURS)}


def git(code: Path) -> dict[str, Any] | None:
    """Return the commit of the repository that a file or folder is in, and whether files differ from it.

    None without git, a repository or a commit, and for what the repository ignores: a package that is
    installed in a project's .venv is not the project's code.
    """
    folder, name = (code, ".") if code.is_dir() else (code.parent, code.name)
    try:
        status = _git(folder, "status", "--porcelain=v2", "--branch")
        status.check_returncode()
        if _git(folder, "check-ignore", "--quiet", "--", name).returncode == 0:
            return None
    except (OSError, subprocess.SubprocessError):
        return None
    lines = status.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "(initial)")
    if commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Hooks export GIT_DIR and the like, which would point at another repository; a container's user need
    # not own the project's folder; a status must not take the lock from a commit that somebody is making.
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    surroundings |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1"}  # mounted folders
    # No other repository of somebody else's: its settings could name commands to run.
    trusted = {folders.root().resolve(), origin.OURS.parents[1]}
    options = [word for place in trusted for word in ("-c", f"safe.directory={place}")]
    return subprocess.run(
        ["git", *options, "-c", "core.fsmonitor=false", "-C", folder, *words],
        env=surroundings,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=5,
        check=False,
    )


def command() -> str:
    """Return the command line of this process, with the values of options named like secrets hidden."""
    words = [*(sys.argv or [""])]
    for place, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if not secrets.is_secret_name(option):
            continue
        if equals:
            words[place] = f"{option}={secrets.HIDDEN}"
        elif option.startswith("-") and place + 1 < len(words):
            words[place + 1] = secrets.HIDDEN
    return shlex.join(map(secrets.without_secrets, words))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _gpus() -> list[str]:
    """Ask torch only where it has started CUDA already: starting it here would break programs that fork."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
