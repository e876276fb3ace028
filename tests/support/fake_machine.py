"""A copy of the checkout on a machine whose docker, df and nvidia-smi only seem to be there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from project import CHECKOUT, Project, copy_checkout

PUBLISHED = ("JUPYTER", "TENSORBOARD", "HEAD", "HEAD_STORE")
ENGINE_INFO = {
    "ServerVersion": "26.1.5+dfsg1",
    "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}},
    "MemTotal": 10 * 2**30,
    "NCPU": 3,
    "DockerRootDir": "/",
}


# notes each call; answers `info` and `compose version`; `ps --filter` tells ports while it is up; the files
# `containers`, `running` and `down` name a project and its folder a line, services, and one that is down;
# `build` is what a build says, which fails where there is a file `broken`;
# `serving` is there while serve is up; `refuses` and `refuses-load` are what `trainlab serve` and it say;
# with `hangs` it doesn't say what it serves
FAKE_DOCKER = """#!/bin/bash
published() { # published NAME: its port, as the shell or .env has it
  local port=${!1:-$(sed -n "s/.*$1[^0-9]*\\([0-9]*\\).*/\\1/p" .env)}
  echo "127.0.0.1:$port->$port/tcp, 10000/tcp"
}
down=$(cat "$FAKE/down" 2>/dev/null)
echo "$*" >>"$FAKE/calls"
[[ $1 != compose ]] || echo "$COMPOSE_PROJECT_NAME" >"$FAKE/project"
case "$*" in
  "ps --all"*working_dir=*) while read -r name folder; do
      if [[ "$*" == *"working_dir=$folder "* ]]; then echo "$name"; fi; done <"$FAKE/containers" ;;
  "ps --all"*) while read -r name folder; do
      if [[ "$*" == *"project=$name "* ]]; then printf '%s\\0\\n' "$folder"; fi; done <"$FAKE/containers" ;;
  "volume inspect"*) [[ -e $FAKE/$3 ]] ;;
  pull*) [[ -e $FAKE/inputs-tensorboard ]] || { echo "nobody answers" >&2; exit 1; } ;;
  "image inspect --format"*trainlab-tensorboard*) cat "$FAKE/inputs-tensorboard" ;;
  "image inspect --format"*trainlab-serve*) cat "$FAKE/inputs-serve" ;;
  "image inspect --format"*) cat "$FAKE/inputs-jupyter" ;;
  "version --format"*) echo amd64 ;;
  "compose "*" trainlab serve "*) if [[ -e $FAKE/refuses ]]; then cat "$FAKE/refuses" >&2; exit 2; fi
    chosen=$* && echo "${chosen##* --choose -- }" >models/served ;;
  "compose exec"*ready.py*) if [[ -e $FAKE/refuses-load ]]; then cat "$FAKE/refuses-load" >&2; exit 2; fi
    [[ ! -e $FAKE/hangs ]] || exit 1
    echo "nearest      $(cat models/served)" ;;
  "compose up"*" serve") touch "$FAKE/serving" ;;
  "compose rm"*" serve") rm -f "$FAKE/serving" ;;
  "compose ps --all --quiet serve") [[ ! -e $FAKE/serving ]] || echo a-service ;;
  "compose ps --format"*" store") [[ -e $FAKE/unhealthy-store ]] || echo healthy ;;
  "compose ps --all --quiet store") echo a-store ;;
  "inspect --format {{.RestartCount}} a-store") [[ ! -e $FAKE/unhealthy-store ]]; echo $? ;;
  "compose ps --format"*" serve") [[ ! -e $FAKE/serving || -e $FAKE/unhealthy ]] || echo healthy ;;
  "inspect --format {{.RestartCount}}"*) if [[ -e $FAKE/unhealthy ]]; then echo 1; else echo 0; fi ;;
  "inspect --format"*) echo the-same-container ;;
  "ps --filter"*service=serve*) [[ ! -e $FAKE/serving ]] || grep -q share.yml .env || published SERVE_PORT ;;
  "buildx bake"*) env | grep -E '^(REVISION|SOURCE)=' >"$FAKE/described" ;;
  "buildx imagetools inspect"*) exit 1 ;;
  version) [[ ! -e $FAKE/silent ]] ;;
  "compose config"*) printf '%6sargs:\\n%8sBASE_IMAGE: debian:12\\n%8sTRACKERS: ""\\n%6ssecrets:\\n' ;;
  "compose ps --quiet"*) [[ ! -e $FAKE/up ]] || echo a-container ;;
  info*) cat "$FAKE/info"; [[ -s $FAKE/info ]] ;;
  "compose version"*) cat "$FAKE/compose" ;;
  "compose build"*) cat "$FAKE/build" 2>/dev/null; [[ ! -e $FAKE/broken ]] ;;
  "compose up"*) mkdir "$FAKE/starting" || exit 1; touch "$FAKE/up"; sleep 0.2; rmdir "$FAKE/starting"
    [[ ! -e $FAKE/unhealthy ]] ;;
  *pass_on*) touch "$FAKE/stopped" ;;
  "compose exec"*" trainlab run"* | "compose exec"*" trainlab sweep"*)
    [[ ! -t 0 || ! -t 1 ]] || touch "$FAKE/terminal"
    [[ -e $FAKE/long ]] || exit 0
    echo at work
    while [[ ! -e $FAKE/stopped ]]; do sleep 0.05; done
    echo a checkpoint was saved; exit 130 ;;
  "compose exec"*) [[ ! -t 0 || ! -t 1 ]] || touch "$FAKE/terminal" ;;
  "compose rm"*) ;;
  "compose ps --services"*) cat "$FAKE/running" ;;
  "compose down"*) rm -f "$FAKE/up" ;;
  "ps --filter"*"service=${down:-none}"*) ;;
  "ps --filter"*service=jupyter*) [[ ! -e $FAKE/up ]] || published JUPYTER_PORT ;;
  "ps --filter"*service=tensorboard*) [[ ! -e $FAKE/up ]] || published TENSORBOARD_PORT ;;
  "compose ps"*) [[ ! -e $FAKE/up ]] || echo healthy ;;
esac
"""


class Machine(Project):
    """A copy of the checkout on a machine whose docker, df and nvidia-smi are ours."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.tools = folder.parent / "tools"
        self.tools.mkdir()
        super().__init__(
            copy_checkout(folder),
            {
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "FAKE": str(self.tools),
                **{f"{name}_PORT": str(free_port()) for name in PUBLISHED},  # those of the lab are real
            },
        )
        self.tool("docker", FAKE_DOCKER)
        (self.tools / "containers").touch()
        (self.tools / "running").touch()
        self.tool("nvidia-smi", "#!/bin/bash\nexit 9\n")
        self.engine(ENGINE_INFO)
        (folder / f"jupyter/wheels/torch-{torch_version()}+cpu-any.whl").touch()  # nothing is fetched

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def engine(self, info: dict[str, object] | None, compose: str = "2.26.1-4") -> None:
        (self.tools / "info").write_text(json.dumps(info, separators=(",", ":")) if info else "")
        (self.tools / "compose").write_text(compose)

    def with_gpu(self) -> None:
        self.engine(ENGINE_INFO | {"Runtimes": {"runc": {}, "nvidia": {"path": "nvidia-container-runtime"}}})
        self.tool("nvidia-smi", "#!/bin/bash\necho 'GPU 0: NVIDIA H200'\n")

    def calls(self) -> str:
        path = self.tools / "calls"
        return path.read_text() if path.exists() else ""

    def built(self) -> int:
        return self.calls().splitlines().count("compose build")


def torch_version() -> str:
    found = re.search(r"^torch==([\d.]+)", (CHECKOUT / "jupyter/torch/cuda.lock").read_text(), re.M)
    assert found
    return found[1]


def environment_of(folder: Path, pip_calls: Path) -> None:
    """Make .venv as `local/install` leaves it, with our own packages; its pip only notes how it is called."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv/lib").glob("python*/site-packages")
    (packages / "trainlab.pth").write_text(f"{folder}/src\n{sysconfig.get_path('purelib')}\n")
    (folder / ".venv/.installed-engine").write_text("of another lock file")
    note = f"import sys; open({str(pip_calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "pip/__main__.py").write_text(note)  # what `pip` calls once torch is held
    for name, code in (("pip", note), ("trainlab", "import trainlab.cli")):
        python = folder / ".venv/bin/python3.11"
        first = f"#!{python}\n"
        if " " in str(python) or len(first) > 127:  # as pip writes it
            first = f"#!/bin/sh\n'''exec' {json.dumps(str(python))} \"$0\" \"$@\"\n' '''\n"
        (folder / ".venv/bin" / name).write_text(first + code)
        (folder / ".venv/bin" / name).chmod(0o755)
