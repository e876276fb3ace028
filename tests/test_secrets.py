from __future__ import annotations

import json

import pytest

from trainlab import secrets
from trainlab.secrets import HIDDEN, hidden, is_secret_name, without_secrets

KEY = "sk-0123456789abcdef"
SECRETS = """
api_key token password secret passwd access_key auth key API_KEY HF_TOKEN hf_token clientSecret client_secret
openai_api_key apikey apiKey AWS_SECRET_ACCESS_KEY --hub-token db.password api_keys credentials Authorization
api_key_2 wandb_key DB_PWD use_auth_token private-key
"""
HARMLESS = """
tokens max_tokens token_length tokenizer monkey keyboard key_dim keys num_keys sort_key text_key pad_token
eos_token cls_token max_token num_token author authentic margin batch_size secretary pass val/loss tokenize
key_padding_mask secrets_found hockey turkey 1 \u043a\u043b\u044e\u0447
"""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """No secrets but a test's own: neither the machine's nor those of other tests."""
    monkeypatch.setattr(secrets, "_told", set())
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_secrets_are_known(name):
    assert is_secret_name(name)
    assert secrets.may_hold_in_json(json.dumps({"a": {name: 1}}).encode())


@pytest.mark.parametrize("name", [*HARMLESS.split(), "", " "])
def test_names_that_only_look_like_it_are_none(name):
    assert not is_secret_name(name)


def test_values_of_variables_named_like_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcd1234")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "abcd1234-and-more")
    monkeypatch.setenv("HARMLESS", "words that stay")
    assert without_secrets("abcd1234, abcd1234-and-more, words that stay") == "***, ***, words that stay"


def test_passwords_in_addresses_are_hidden_and_so_apart_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:let-me-in@host:5000")
    assert (
        without_secrets("no answer from http://me:let-me-in@host:5000/api")
        == "no answer from http://***@host:5000/api"
    )
    assert without_secrets("user me, password let-me-in") == "user me, password ***"


@pytest.mark.parametrize("value", ["", "a", "true", "1", "disable", "1234567"])
def test_short_values_are_left_alone(monkeypatch: pytest.MonkeyPatch, value) -> None:
    monkeypatch.setenv("SOME_TOKEN", value)
    text = f"a cat, true to form, was 1 of 1234567 to disable {value}"
    assert without_secrets(text) == text


def test_the_place_of_a_key_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "server.pem").touch()
    monkeypatch.setenv("SSL_KEY", str(tmp_path / "server.pem"))
    monkeypatch.setenv("OTHER_KEY", "/Zm9vYmFyYmF6cXV4")
    assert without_secrets(f"{tmp_path}/server.pem") == f"{tmp_path}/server.pem"
    assert without_secrets("/Zm9vYmFyYmF6cXV4") == HIDDEN


@pytest.mark.parametrize(
    "line",
    [
        f"OPENAI_API_KEY={KEY}",
        f'export OPENAI_API_KEY = "{KEY}"',
        f"  MY_TOKEN='{KEY}'  ",
        f"MY_PASSWORD: {KEY} # mine",
        f"\ufeffSECRET={KEY}",
        f"DATABASE=postgres://me:{KEY}@db/runs",
    ],
)
def test_secrets_of_the_env_file_are_hidden_however_it_is_written(tmp_path, line):
    (tmp_path / ".env").write_text(f"{line}\r\n#A=b\nB=c\n", "utf-8")
    assert without_secrets(f"ValueError: bad key {KEY}.") == "ValueError: bad key ***."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h/x?api_key=abc&page=2", "http://h/x?api_key=***&page=2"),
        ("see https://h/?sort_key=name#top", "see https://h/?sort_key=name#top"),
        ("{'Authorization': 'Bearer abcdefgh.ij'}", "{'Authorization': 'Bearer ***'}"),
        ("authorization: abcdefghij", "authorization: ***"),
        ("ssh://u:p@ss@host/x", "ssh://***@host/x"),
        ("me@host, http://host/@me", "me@host, http://host/@me"),
    ],
)
def test_what_has_the_form_of_a_secret_is_hidden(text, shown):
    assert without_secrets(text) == shown


def test_a_secret_is_hidden_as_json_and_addresses_write_it(monkeypatch):
    monkeypatch.setenv("A_PASSWORD", 'p"a&s\\s w\u00f6rd')
    for text in ('p"a&s\\s w\u00f6rd', 'p\\"a&s\\\\s w\\u00f6rd', "p%22a%26s%5Cs%20w%C3%B6rd"):
        assert without_secrets(f"<{text}>") == "<***>"


def test_each_line_of_a_key_of_several_lines_is_hidden(monkeypatch):
    monkeypatch.setenv("DEPLOY_KEY", "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nabc\n-----END KEY-----\n")
    assert without_secrets("line 1: MIIEvQIBADANBgkqhkiG") == "line 1: ***"


def test_settings_under_secrets_names_are_hidden_and_others_stay():
    config = {
        "api_key": "x",
        "nested": {"password": "hunter2", "size": 3},
        "token": ["a", KEY],
        "auth": True,
        "secret": None,
        "pin_password": 12345678,
        "pad_token": "<pad>",
        "key": 7,
        "margin": 1.5,
    }
    assert hidden(config) == config | {
        "api_key": HIDDEN,
        "nested": {"password": HIDDEN, "size": 3},
        "token": ["a", HIDDEN],
        "pin_password": HIDDEN,
    }


WORDS = {
    "key": "val/loss",
    "token": "sentence",
    "auth": "training",
    "group_token": "customer_id",
    "password": "training",
}


def test_a_word_under_a_name_that_may_mean_other_things_stays_and_is_cut_out_of_nothing():
    assert hidden(WORDS) == WORDS | {"password": HIDDEN}
    secrets.remember(secrets.named(WORDS))
    metrics = {"val/loss": 1.0, "val/sentence_acc": 0.5, "val/token": 2.0, "training/loss": 3.0}
    known = {
        "experiment": "sentences",
        "last": metrics,
        "directions": {"val/auth": "max"},
        "monitor": "val/loss",
    }
    assert hidden(known) == known
    assert (
        without_secrets("each sentence of training with customer_id")
        == "each sentence of training with customer_id"
    )


def test_no_word_of_the_environment_is_cut_out_of_a_metric_s_name(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "training")
    monkeypatch.setenv("B_TOKEN", KEY)
    secrets.remember([])  # what is known is collected anew
    assert secrets.of_tag(f"training/{KEY}") == "training/***"
    assert hidden({"training/loss": 1.0, f"x/{KEY}": 2.0}) == {"training/loss": 1.0, "x/***": 2.0}


def test_values_told_of_are_hidden_in_keys_and_values_too():
    secrets.remember(secrets.named({"outer": {"api_key": KEY}, "token": ["short", f"{KEY}2"]}))
    found = hidden({f"x{KEY}": [f"{KEY}2"], "a": (1, KEY)}, by_name=False)
    assert found == {"x***": ["***"], "a": (1, "***")}
    assert without_secrets("short") == "short"


@pytest.mark.parametrize(
    "code",
    [
        f'api_key = "{KEY}"',
        f"api_key: str = '{KEY}'  # mine",
        f'os.environ["OPENAI_API_KEY"] = "{KEY}"',
        f'login(token="{KEY}")',
        f"client = Client(**{{'password': '{KEY}'}})",
        f"%env HF_TOKEN={KEY}",
        f"%set_env HF_TOKEN {KEY}",
    ],
)
def test_texts_that_code_gives_to_secrets_names_are_found(code):
    assert secrets.named_in(f"import os\n{code}\n") == [KEY]


@pytest.mark.parametrize(
    "code",
    ['df.groupby(key="category")', 'pad_token = "<padding>"', 'os.environ["API_KEY"]', "token = get()"],
)
def test_other_texts_of_code_are_no_secrets(code):
    assert secrets.named_in(code) == []


@pytest.mark.parametrize("size", [1, 2, 5, 19, 100])
def test_a_secret_across_pieces_of_a_stream_is_hidden(monkeypatch, size):
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("B_KEY", "sk-sk-sk-0123")
    secrets.remember([])  # what is known is collected anew
    text = f"start {KEY}s{KEY}\nsk-0123 sk-sk-sk-sk-0123 end sk-01"
    stream = secrets.Stream()
    pieces = [stream.feed(text[place : place + size]) for place in range(0, len(text), size)]
    assert "".join(pieces) + stream.rest() == "start ***s***\nsk-0123 sk-*** end sk-01"
    assert stream.rest() == ""


def test_what_can_be_no_secret_is_not_held_back(monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    secrets.remember([])  # what is known is collected anew
    assert secrets.Stream().feed("epoch 1: 50 %") == "epoch 1: 50 %"


@pytest.mark.parametrize(
    "piece", ["a", "\n", " ", "a: ", "://", "&a", ";", '"', "key", "x='", "key1", "[", "@"]
)
def test_long_texts_of_any_kind_take_no_time_without_end(piece):
    text = piece * (300_000 // len(piece))
    assert secrets.named_in(text) == []
    assert without_secrets(f"uthorization://{text}")
    secrets.may_hold_in_json(text.encode())


def test_the_addresses_that_are_notified_are_hidden_whole_and_in_parts(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("NOTIFY='slack://T0K3Naaaa/T0K3Nbbbb, json://127.0.0.1:1/x'\n")
    shown = without_secrets("slack://T0K3Naaaa/T0K3Nbbbb or T0K3Nbbbb at 127.0.0.1")
    assert shown == "*** or *** at 127.0.0.1"
    (tmp_path / ".env").unlink()
    monkeypatch.setenv("NOTIFY", "ntfy://my-l0ng-topic")
    assert without_secrets("to ntfy://my-l0ng-topic") == "to ***"
