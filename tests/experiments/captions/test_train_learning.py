"""The captions notebook with its defaults, executed whole: scenes that were never seen are captioned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from project import CHECKOUT
from trainlab.runs.frames import scalars

ROOT = CHECKOUT
TRAINLAB = [sys.executable, "-c", "from trainlab.cli import main; main()"]
LEAST = 0.9  # share of unseen scenes captioned right, word for word


@pytest.mark.slow
def test_unseen_scenes_are_captioned_word_for_word(own_logs: Path) -> None:
    words = ["run", str(ROOT / "notebooks" / "captions.ipynb")]
    environment = {**os.environ, "TRAINLAB_LOGS": str(own_logs), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*TRAINLAB, *words], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr
    (folder,) = (own_logs / "captions").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    history = scalars(folder).set_index("tag")["value"]
    assert history["test/exact_match"] >= LEAST
    assert history["val/exact_match"].iloc[-1] >= LEAST
    assert history["test/bleu"] >= LEAST > history["val_commonest/bleu"].max()
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "left of" in "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
