"""A module of the user's own, trained in a run, becomes a bundle that answers as it does."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from trainlab import Run, paths
from trainlab.cli import app
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.restoring import BEST
from trainlab.serving import bundle, modules
from trainlab.serving.export import export

pytest.importorskip("onnxscript")

OWN = """
import lightning, torch
from torch.utils.data import DataLoader, TensorDataset
from trainlab.checks.subject import Subject

class Mine(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8))
    def forward(self, x):
        return self.layer(x)

class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(20, 3), torch.zeros(20)), batch_size=8)

def subject(settings):
    return Subject("mine", Mine, Data)

def module(settings):
    made = Mine()
    made.example_input_array = torch.randn(4, 3)
    return made

def neither(settings):
    return Mine()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose best checkpoint is of `Mine`, and `Mine` in a file beside."""
    (tmp_path / "mine_to_export.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine_to_export", raising=False)
    import mine_to_export

    torch.manual_seed(3)
    with Run("mine") as run:
        checkpoint.save({"state_dict": mine_to_export.Mine().state_dict()}, run.folder / BEST)
    return run.folder


@pytest.mark.parametrize("function", ["subject", "module"])
def test_its_bundle_answers_with_the_run_s_weights(run: Path, function: str) -> None:
    done = CliRunner().invoke(app, ["export-model", f"mine_to_export:{function}", "--run", "last"])
    assert done.exit_code == 0, (done.output, done.exception)
    (folder,) = [path for path in paths.models().iterdir() if path.is_dir()]
    found = bundle.read(folder)
    import mine_to_export

    module = mine_to_export.Mine().eval()
    modules.load(module, run)
    x = torch.randn(5, 3)
    (got,) = found.session(modules.NETWORK).run(None, {"input": x.numpy()})
    assert np.abs(got - module(x).detach().numpy()).max() < 1e-4
    assert found.json("settings.json") == {"inputs": {"input": "float32"}, "outputs": ["output"]}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (["mine_to_export:subject"], "not trained yet. Name the run whose weights it gets"),
        (["mine_to_export:neither", "--run", "last"], "returns Mine. Expected a Subject"),
        (["mine_to_export:nobody", "--run", "last"], "has no attribute 'nobody'"),
        (["last", "--run", "last"], "Leave it out"),
        (["last"], "a run of mine, which says nothing of how it is exported"),
        (["mine_to_export:subject", "--run", "last", "--int8"], "int8 is not offered here"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(run: Path, call: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["export-model", *call])
    assert isinstance(done.exception, UserError), done.output
    assert told in str(done.exception)
    assert not paths.models().exists()


class Pair(lightning.LightningModule):
    """Reads two texts' numbers, of any length, and returns two things."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self.embedding(batch["one"]).mean(1), self.embedding(batch["two"]).mean(1)
        return first - second, first


def pairs(length: int) -> dict[str, torch.Tensor]:
    return {"one": torch.randint(0, 10, (3, length)), "two": torch.randint(0, 10, (3, 5))}


def test_several_inputs_outputs_and_lengths(run: Path) -> None:
    made = export(run, modules.recipe(Pair(), [pairs(4), pairs(7)]))
    assert made.figures["items"] == 6
    assert {"largest_difference_output_0_alone", "largest_difference_output_1_in_batches"} <= set(
        made.figures
    )


class Branching(nn.Module):
    """What ONNX has no words for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_module_that_cannot_be_exported_is_told_in_a_sentence(run: Path) -> None:
    with pytest.raises(UserError, match=r"can't be exported to ONNX.*without branches on their values"):
        export(run, modules.recipe(Branching(), [torch.ones(2, 2)]))
    assert list(paths.models().iterdir()) == []


def test_what_is_no_tensor_and_a_single_item_are_refused() -> None:
    with pytest.raises(UserError, match="returns, str"):
        modules.recipe(nn.Identity(), ["text"])
    with pytest.raises(UserError, match="has one item"):
        modules.recipe(nn.Identity(), [torch.ones(1, 2)])


def test_weights_of_another_network_are_told(run: Path) -> None:
    with pytest.raises(UserError, match=r"are not this module's: .*Missing key"):
        modules.load(nn.Linear(2, 2), run)
