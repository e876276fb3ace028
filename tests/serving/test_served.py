"""`models/served` names folders in models/, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlab import paths
from trainlab.errors import UserError
from trainlab.serving import served
from trainlab.serving.bundle import BundleError


@pytest.fixture
def models() -> Path:
    paths.models().mkdir()
    return paths.models()


def test_what_was_chosen_is_what_is_served(models: Path) -> None:
    served.choose(["news-1", "mood-2"])
    assert served.names() == ["news-1", "mood-2"]
    assert [path.name for path in models.iterdir()] == ["served"], "nothing half is left beside it"


def test_without_a_choice_the_command_that_makes_one_is_told() -> None:
    with pytest.raises(
        BundleError, match=r"nothing is chosen yet\. Choose what is served: trainlab serve RUN"
    ):
        served.names()


@pytest.mark.parametrize(
    "text", ["", "\n", "../secret", "/etc", "a\nb\nc\nd", "a b", ".trash", "\0", "x" * 5000]
)
def test_what_is_no_list_of_names_in_models_is_refused(models: Path, text: str) -> None:
    (models / "served").write_text(text)
    with pytest.raises(BundleError, match="Choose again: trainlab serve RUN --choose"):
        served.names()


def test_a_link_is_not_followed(models: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a\n")
    (models / "served").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="a link, and only files are read"):
        served.names()


def test_a_disk_that_refuses_is_told() -> None:
    with pytest.raises(UserError, match="can't be written"):
        served.choose(["a"])
