"""What `pip install trainlab` costs: sizes of wheel and environment, the time to a first recorded run.

`benchmarks/package.py` builds the wheel, installs it into new environments without and with pip's cache, runs
a script of three lines there, and writes benchmarks/package.md. It takes some minutes and needs PyPI.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
SCRIPT = 'import trainlab\nwith trainlab.Run("mine") as run:\n    run.log({"train/loss": 1.0})\n'


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        wheel = built(place)
        rows = [installed(place / "cold", wheel, "--no-cache-dir"), installed(place / "warm", wheel)]
        size = f"{wheel.stat().st_size / 1e3:.0f} kB"
    text = "\n".join(
        [
            "# What the package costs\n",
            f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at "
            f"the end. The wheel: {size}. Without extras; sizes by `du -sm`. "
            "Made by `benchmarks/package.py`.\n",
            "| pip's cache | bare environment | with trainlab | `pip install` | to the first recorded run |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(
                f"| {name} | {bare} MB | {whole} MB | {install:.0f} s | {first:.0f} s |"
                for name, (bare, whole, install, first) in zip(("unused", "filled"), rows, strict=True)
            ),
        ]
    )
    Path(__file__).with_suffix(".md").write_text(text + "\n")
    print(text)


def built(place: Path) -> Path:
    """Return the wheel of this checkout, built from a copy."""
    source = place / "source"
    source.mkdir()
    packed = subprocess.run(
        ["tar", "-c", "pyproject.toml", "README.md", "LICENSE", "src"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-x"], cwd=source, input=packed.stdout, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", place / "dist", source], check=True)
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def installed(place: Path, wheel: Path, *options: str) -> tuple[int, int, float, float]:
    """Install into a new environment: MB before and after, seconds of pip, and until a run was recorded."""
    venv.create(place / "env", with_pip=True)
    bare = megabytes(place / "env")
    (place / "script.py").write_text(SCRIPT)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TRAINLAB_", "PYTHON"))}
    began = time.monotonic()
    subprocess.run([place / "env/bin/pip", "install", "-q", *options, wheel], check=True)
    install = time.monotonic() - began
    subprocess.run([place / "env/bin/python", "script.py"], cwd=place, env=clean, check=True)
    assert list(place.glob("logs/mine/*/run.json"))
    return bare, megabytes(place / "env"), install, time.monotonic() - began


def megabytes(folder: Path) -> int:
    return int(subprocess.check_output(["du", "-sm", folder], text=True).split()[0])


if __name__ == "__main__":
    main()
