"""A sweep on several hosts: containers on a network of the real engine, and faults that are real ones."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from hosts import GRACE, Hosts, docker, lives, values, writers
from trainlab.run import record
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """A network with a head; whatever was started on it is gone at the end."""
    folder = tmp_path / "shared"
    folder.mkdir()
    found = Hosts(folder, f"hosts{os.getpid()}")
    try:
        found.begin(*getattr(request, "param", []))
        yield found
    finally:
        for host in found.started if request.session.testsfailed or os.environ.get('SHOW') else ():
            print(f"--- {host}\n{found.said(host)}")
        found.end()


def test_two_hosts_share_the_trials_of_a_sweep(hosts: Hosts) -> None:
    hosts.lead("a", trials=4)
    until(lambda: hosts.folder.joinpath("logs/.sweeps/tiny/storage").exists(), "the sweep has begun")
    hosts.work("b")
    folders = hosts.held(2)
    assert {writers(folder)[0] for folder in folders} == {"a", "b"}
    hosts.go()
    hosts.ended("a", "b")
    hosts.assert_complete(4)
