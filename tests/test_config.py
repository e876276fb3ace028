"""Settings are typed, frozen, and say what is wrong with a value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from trainlab.config import Config, assignments, path_or
from trainlab.errors import UserError
from trainlab.training.config import CommonConfig


class Settings(Config):
    margin: float = Field(3.0, gt=0)
    class_size: int = Field(30, ge=1)
    split: Literal["item", "triplet"] = "item"
    trained: bool = True


def test_text_from_the_command_line_becomes_the_fields_type() -> None:
    settings = Settings.parse({"margin": "5", "class_size": "60", "trained": "false"})
    assert (settings.margin, settings.class_size, settings.trained) == (5.0, 60, False)


class Paths(Config):
    data: Annotated[str, path_or("sample")] = "sample"


def test_a_path_is_made_absolute_and_a_name_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "sample"):
        Path(name).touch()
    given = ("mine", "./missing", "owner/model", "sample")
    found = [Paths.parse({"data": each}).data for each in given]
    assert found == [str(tmp_path / "mine"), str(tmp_path / "missing"), "owner/model", "sample"]
    assert Paths().data == "sample"


def test_settings_are_checked_by_the_data_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "someone"
    folder.mkdir()
    for name, code in {
        "__init__": "",
        "config": "from trainlab import Config\nclass Mine(Config):\n    size: int = 1\n",
        "data": "def preflight(config):\n    raise ValueError(f'checked {config.size}')\n",
    }.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from someone.config import Mine

    with pytest.raises(ValueError, match="checked 1"):
        Mine().preflight()
    Settings().preflight()


class Collections(Config):
    size: tuple[int, int] = (64, 64)
    layers: list[int] = Field([])
    names: frozenset[str] = frozenset()
    options: dict[str, float] = Field({})


def test_text_becomes_the_collection_that_a_field_wants() -> None:
    texts = {"size": "(32, 16)", "layers": "[1]", "names": "{'a'}", "options": "{'b': 1}"}
    assert Collections.parse(texts) == Collections(
        size=(32, 16), layers=[1], names=frozenset("a"), options={"b": 1.0}
    )
    with pytest.raises(UserError, match=r"size=wide: should be a valid tuple"):
        Collections.parse({"size": "wide"})


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match=r"margn: no such parameter\. Did you mean 'margin'\?"):
        Settings.parse({"margn": 5})


def test_a_refused_key_of_many_names_the_nearest_three_and_where_the_rest_stands() -> None:
    with pytest.raises(UserError) as error:
        CommonConfig.parse({"limit_batches": 3})
    told = str(error.value)
    assert told.count("limit_") == 4
    assert f"stand in {Path('src/trainlab/training/config.py')}: class CommonConfig" in told
    assert len(told) < 300
    with pytest.raises(UserError, match=r"max_epoch: no such parameter\. Did you mean 'max_epochs'\?"):
        CommonConfig.parse({"max_epoch": 3})


def test_a_refused_key_of_few_names_them_all() -> None:
    with pytest.raises(UserError, match=r"Known: margin, class_size, split, trained\."):
        Settings.parse({"x": 5})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("margin", "-1", "greater than 0"),
        ("class_size", "0", "greater than or equal to 1"),
        ("class_size", "many", "valid integer"),
        ("split", "rows", "'item' or 'triplet'"),
        ("margin", "nan", "finite"),
        ("margin", "inf", "finite"),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(key: str, value: str, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        Settings.parse({key: value})
    assert f"{key}={value}" in str(error.value)
    assert allowed in str(error.value)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(UserError) as error:
        Settings.parse({"margin": -1, "clas_size": 3})
    assert "margin=-1" in str(error.value)
    assert "'class_size'" in str(error.value)


def test_a_notebooks_other_names_are_left_alone() -> None:
    assert Settings.from_notebook({"margin": 5, "pandas": object()}).changes() == {"margin": 5.0}


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().margin = 4.0  # type: ignore[misc]


@pytest.mark.parametrize("words", [["margin"], ["=5"], ["margin=1", "margin=2"]])
def test_words_that_are_no_assignments_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError):
        assignments(words)


SECRETS = ["api_key", "token", "password", "secret", "HF_TOKEN", "clientSecret", "wandb_api_key", "key"]
SECRETS += ["accessToken", "aws_secret_access_key", "openai_key", "db_passwd", "credentials", "apikey"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_refused_with_the_place_where_it_belongs(name: str) -> None:
    for parse in (
        lambda: assignments([f"{name}=sk-12345678"]),
        lambda: Settings.parse({name: "sk-12345678"}),
    ):
        with pytest.raises(UserError, match=r"\.env.*os\.environ\['[A-Z_]+'\]") as error:
            parse()
        assert "12345678" not in str(error.value)


PLAIN = ["tokens", "max_tokens", "token_length", "pad_token", "eos_token", "sort_key", "text_key", "key_dim"]
PLAIN += ["monkey", "num_keys", "tokenizer", "secretary", "passes", "keys", "next_token", "tokens_per_batch"]


@pytest.mark.parametrize("name", PLAIN)
def test_what_only_sounds_like_a_secret_is_a_parameter(name: str) -> None:
    assert assignments([f"{name}=5"]) == {name: "5"}


class WithKey(Config):
    api_key: str = ""


def test_a_setting_named_like_a_secret_may_stay_empty() -> None:
    assert WithKey.from_notebook({"api_key": ""}) == WithKey()
    with pytest.raises(UserError, match="a secret is no parameter"):
        WithKey.from_notebook({"api_key": "sk-12345678"})


def test_a_value_may_hold_an_equals_sign() -> None:
    assert assignments(["data=a=b.tsv"]) == {"data": "a=b.tsv"}


class Aliased(Config):
    ALIASES = {"max_epochs": "epochs"}  # noqa: RUF012

    epochs: int = 1


def test_a_setting_may_have_a_second_name() -> None:
    assert Aliased.parse({"max_epochs": "7"}).epochs == 7


def test_a_setting_given_under_both_names_is_refused() -> None:
    with pytest.raises(UserError, match="epochs is given twice"):
        Aliased.parse({"epochs": "7", "max_epochs": "8"})


class Inheriting(Aliased):
    margin: float = 3.0


def test_changes_name_a_class_s_own_settings_first() -> None:
    assert list(Inheriting(epochs=2, margin=5).changes()) == ["margin", "epochs"]
