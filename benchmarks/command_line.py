"""Seconds until the command line answers: `import trainlab`, `trainlab --help`, `trainlab runs`.

`benchmarks/command_line.py` starts each in turn and writes benchmarks/command_line.md.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 9
TRAINLAB = str(Path(sys.executable).with_name("trainlab"))
COMMANDS = {
    "`python -c pass`, to compare with": [sys.executable, "-c", "pass"],
    "`import trainlab`": [sys.executable, "-c", "import trainlab"],
    "`trainlab --help`": [TRAINLAB, "--help"],
    "`trainlab runs`, no runs": [TRAINLAB, "runs"],
}
LOADED = "import sys; {}; print(*{{'torch', 'transformers', 'pandas'}} & set(sys.modules))"


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as logs:
        environment = os.environ | {"TRAINLAB_LOGS": logs}
        for _ in range(REPEATS):
            for name, command in COMMANDS.items():
                since = time.perf_counter()
                subprocess.run(command, env=environment, capture_output=True, check=True)
                times[name].append(time.perf_counter() - since)
    lines = [
        "# Until the command line answers\n",
        f"Seconds, {REPEATS} starts each, in turn; wanted: 0.3 for the import, 0.5 for the commands. "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end. Loaded by `import trainlab` of "
        f"torch, transformers and pandas: {loaded('import trainlab') or 'none'}; by the command line: "
        f"{loaded('import trainlab.cli') or 'none'}. Made by `benchmarks/command_line.py`.\n",
        "| | median (range) |",
        "| --- | ---: |",
        *(
            f"| {name} | {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) |"
            for name, each in times.items()
        ),
    ]
    table = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def loaded(statement: str) -> str:
    """Return which of the large packages a statement loads."""
    found = subprocess.run([sys.executable, "-c", LOADED.format(statement)], capture_output=True, check=True)
    return found.stdout.decode().strip()


if __name__ == "__main__":
    main()
