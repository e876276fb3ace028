"""`trainlab run ... --nodes 1:2 --join HEAD --name NAME`: makes the run's folder, or joins what is there.

The same line on each host. Whichever comes first makes a file that no second one can make, and then the
folder; the others wait for both. They see the same `logs/`, and nothing else of each other but the network.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import files, paths, secrets, untrusted
from trainlab.errors import UserError, unwritable
from trainlab.headless import launcher, notebook
from trainlab.headless.place import LOG, Place, create, runner_lock
from trainlab.hosts import rendezvous
from trainlab.run import lock, naming, record
from trainlab.run.run import HOSTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nbformat import NotebookNode

    from trainlab.headless.place import Prepared

MADE_WITHIN = 60.0  # seconds for the first host from its claim to a folder that is ready
GLANCE = 0.1  # seconds between two looks
ABSENT = "nothing"  # in an error message, for a setting that only one host has


class Shared(Place):
    """The folder of a run that several hosts train, each by an agent of torchrun's.

    Args:
        nodes: How many hosts, '2' or '1:2'.
        join: The store's host, or HOST:PORT.
        name: Of the run, by which the hosts find each other.
        devices: Processes on this host; None: the setting `devices` of the run, or 1.

    Raises:
        UserError: For what can't be, a public address, and where no store answers.
    """

    module = "trainlab.hosts.agent"

    def __init__(self, nodes: str, join: str, name: str | None, devices: int | None) -> None:
        super().__init__()
        if not (name and naming.slug(name)):
            raise UserError(
                f"--nodes {nodes}: the hosts find each other's run by its name. Add one, the same on each: "
                "--name big"
            )
        rendezvous.nodes(nodes)
        self.nodes, self.name, self.devices = nodes, name, devices
        self.store = rendezvous.endpoint(join)
        rendezvous.check(self.store)
        self.own = Path(tempfile.mkdtemp(prefix="trainlab-host-"))  # this host's, which the agent removes
        self.claim: Path | None = None
        self.given: dict[str, Any] = {}  # what the run was started with
        self.made = self.started = False

    def new(self, experiment: str, name: str | None, config: Mapping[str, Any], **fields: Any) -> Prepared:
        """Make the run's folder, or wait for the host that makes it, and take that.

        Raises UserError for a run of this name that has ended, or has other settings.
        """
        logs = paths.logs().resolve()
        given = {"arguments": fields["arguments"]} if "arguments" in fields else config
        self.given = secrets.hidden(record.plain(given))
        self.devices = self.devices or _devices(config)
        parent = naming.as_spelled(logs / naming.slug(experiment))
        self.claim = parent / f".{naming.slug(self.name)}.nodes"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return self._joined(parent)
        except OSError as error:
            raise UserError(unwritable(parent, error)) from error
        os.close(descriptor)
        self.made = True
        try:
            folder = naming.new_folder(logs, experiment, name)
            create(folder, config, nodes=self.nodes, pid=None, **fields)
        except BaseException:
            self.claim.unlink()
            raise
        return folder, runner_lock(folder)

    def _joined(self, parent: Path) -> Prepared:
        assert self.claim is not None, "made above"
        deadline = time.monotonic() + MADE_WITHIN
        while not (content := untrusted.content(self.claim, record.LARGEST)) and time.monotonic() < deadline:
            time.sleep(GLANCE)
        try:
            known: dict[str, Any] = untrusted.parsed(content) if content else {"run": ""}
            folder, given = parent / Path(known["run"]).name, dict(known.get("given", {}))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{self.claim} is broken: take another --name, or delete it.") from None
        if folder == parent or not (folder / record.FILE).exists():
            what = "is no longer there" if content else "was never made: the host that began to was lost"
            raise UserError(
                f"--name {self.name}: its run {what}. Take another name; or, where no host is at it, delete "
                f"{self.claim} and start again."
            )
        if record.read(folder).status == "finished":
            raise UserError(f"--name {self.name}: the run {folder.name} is finished. Take another name.")
        differing = [
            f"{key}: that run has {given.get(key, ABSENT)!r}, given is {self.given.get(key, ABSENT)!r}."
            for key in {**given, **self.given}
            if given.get(key, ABSENT) != self.given.get(key, ABSENT)
        ]
        if differing:
            raise UserError(
                f"--name {self.name}: the run {folder.name} was started by another line.\n"
                + "\n".join(differing)
                + "\nStart each host by the same line. How many processes this host has, --devices says."
            )
        if self.log == LOG:
            self.log = f"output-{naming.slug(socket.gethostname()) or 'host'}.log"
        return folder, lock.hold(folder, lock.RUNNER)

    def keep(self, folder: Path, nb: NotebookNode) -> None:
        """Keep the notebook for this host's processes; the run's own copy is that of the first host."""
        notebook.write(self.own, nb)
        if self.made:
            notebook.write(folder, nb)

    def arguments(self, folder: Path, program: Path, module: str, arguments: Sequence[str]) -> Sequence[str]:
        """Let the other hosts in; return what the agent is given besides the folder."""
        assert self.claim is not None, "`new` has been called"
        if self.made:
            files.write(self.claim, json.dumps({"run": folder.name, "given": self.given}).encode())
        self.started = True
        first = [str(self.own), self.nodes, str(self.store), str(self.devices)]
        return [*first, str(program), module, *arguments]

    def abandon(self) -> None:
        """Take back what was made for a run that doesn't start."""
        if not self.started:
            shutil.rmtree(self.own, ignore_errors=True)
        if self.made and self.claim is not None:
            with suppress(OSError):
                if not self.claim.stat().st_size:  # nobody has been let in
                    self.claim.unlink()


def _devices(config: Mapping[str, Any]) -> int:
    known = config.get("devices", 1)
    return known if isinstance(known, int) and known > 0 else 1


def run(  # noqa: PLR0913
    program: str,
    words: Sequence[str],
    arguments: Sequence[str],
    *,
    nodes: str | None,
    join: str | None,
    devices: int | None,
    name: str | None,
    **options: Any,
) -> int:
    """Execute a notebook or script on this host together with others (see `launcher.run`, `Shared`)."""
    known = dict(word.split("=", 1) for word in words if "=" in word)
    nodes = nodes or known.get("nodes")
    if not (nodes and join):
        raise UserError(
            "A training over hosts needs both: --nodes 1:2 says how many hosts, --join HEAD where they meet, "
            "the host on which `trainlab store` runs."
        )
    if known.get("nodes", nodes) != nodes:
        raise UserError(f"--nodes {nodes} and nodes={known['nodes']} differ: give one of them.")
    shared = Shared(nodes, join, name, devices)
    known = {HOSTS: nodes} | rendezvous.ENVIRONMENT
    os.environ |= known
    try:
        return launcher.run(program, words, arguments, name=name, place=shared, **options)
    finally:
        for each in known:
            del os.environ[each]
        shared.abandon()
