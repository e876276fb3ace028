"""The address that a server listens at: whose word counts, and what is told where there is none."""

from __future__ import annotations

import pytest

from trainlab.errors import UserError
from trainlab.web import binding


@pytest.mark.parametrize("told", ["http", "-1", "65536", "80 80", "\u0665"])
def test_what_is_no_port_is_told_with_its_source(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    with pytest.raises(UserError, match=f"--port={told}: expected the number of a port"):
        binding.port_of(told, "SERVE_PORT", 8000)
    monkeypatch.setenv("SERVE_PORT", told)
    with pytest.raises(UserError, match=f"SERVE_PORT={told}: expected"):
        binding.port_of(None, "SERVE_PORT", 8000)


def test_the_port_is_the_one_told_or_the_environment_s_or_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVE_PORT", "81")
    assert (binding.port_of("80", "SERVE_PORT", 8000), binding.port_of(None, "SERVE_PORT", 8000)) == (80, 81)
    monkeypatch.setenv("SERVE_PORT", " ")
    assert binding.port_of(None, "SERVE_PORT", 8000) == 8000


def test_an_address_that_is_not_this_machine_s_is_told() -> None:
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(UserError, match="address"):
            binding.bound(host, 8000)
