from __future__ import annotations

import pytest

from trainlab.runs.trackers.secrets import without_secrets


def test_values_of_variables_named_like_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcd1234")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "abcd")
    monkeypatch.setenv("HARMLESS", "words")
    assert without_secrets("abcd1234 and abcd, words") == "*** and ***, words"


def test_passwords_in_addresses_are_hidden_and_so_apart_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:letmein@host:5000")
    assert (
        without_secrets("no answer from http://me:letmein@host:5000/api")
        == "no answer from http://***@host:5000/api"
    )
    assert without_secrets("user me, password letmein") == "user me, password ***"


def test_short_values_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a")
    assert without_secrets("a cat") == "a cat"
