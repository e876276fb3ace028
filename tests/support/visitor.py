"""A visitor of a shared stack: nearly a browser, which trusts one certificate and finds a name here."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import uuid
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import websocket

PATIENCE = 60  # seconds


@dataclass
class Answer:
    """What came back."""

    status: int
    text: str
    headers: http.client.HTTPMessage

    @property
    def cookies(self) -> list[str]:
        return self.headers.get_all("Set-Cookie", [])


@dataclass
class Visitor:
    """Whoever comes to `https://name:port`, which is at an address of this machine.

    Args:
        name: As in the address.
        port: Of HTTPS.
        certificate: The file that is trusted: a root, or the server's own.
        at: The address that the name stands for.
    """

    name: str
    port: int
    certificate: Path
    at: str = "127.0.0.1"
    jar: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"{self.name}:{self.port}"

    def connect(self, name: str = "") -> ssl.SSLSocket:
        """Open a connection for a name, which the certificate must be for."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection((self.at, self.port), timeout=PATIENCE)
        return context.wrap_socket(plain, server_hostname=name or self.name)

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Send a request with the cookies of now; keep those that come. `_` in a header stands for `-`."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        given = {"Host": self.host} | ({"Cookie": cookie} if cookie else {})
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.name, self.port, timeout=PATIENCE)
        connection.sock = self.connect()
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.read().decode(errors="replace"), answer.headers)
        connection.close()
        for line in found.cookies:
            for name, morsel in SimpleCookie(line).items():
                self.jar[name] = morsel.coded_value
        return found

    def log_in(self, password: str, **headers: str) -> Answer:
        form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": f"https://{self.host}"}
        return self.ask("/login", "POST", urlencode({"password": password, "next": "/lab"}), **form | headers)

    def enter(self, password: str) -> str:
        """Log in and open JupyterLab; return the path below which it lives."""
        place = self.log_in(password).headers["Location"]
        page = self.ask(place)
        assert page.status == 200 and "jupyter-config-data" in page.text, page
        return re.sub(r"lab$", "", urlsplit(place).path)

    def execute(self, base: str, code: str) -> str:
        """Start a kernel and execute a cell over its WebSocket; return what it prints."""
        made = self.ask(f"{base}api/kernels", "POST", "{}", X_XSRFToken=self.jar["_xsrf"])
        assert made.status == 201, made
        channels = self.open_socket(f"{base}api/kernels/{json.loads(made.text)['id']}/channels")
        message = {
            "header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
            "channel": "shell",
        }
        message["header"] |= {
            "session": uuid.uuid4().hex,
            "username": "visitor",
            "date": "2026-01-01T00:00:00Z",
        }
        channels.send(json.dumps(message))
        while True:
            answer = json.loads(channels.recv())
            if answer["msg_type"] == "stream":
                channels.close()
                return answer["content"]["text"]

    def open_socket(self, path: str, origin: str = "") -> websocket.WebSocket:
        return websocket.create_connection(
            f"wss://{self.host}{path}",
            socket=self.connect(),
            cookie="; ".join(f"{name}={value}" for name, value in self.jar.items()),
            origin=origin or f"https://{self.host}",
            timeout=PATIENCE,
        )
