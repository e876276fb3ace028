"""A sweep on a Ray cluster: Ray finds nodes for its workers, and other nodes when those are lost.

More is not asked of Ray: it begins a lost task anew, and lets one that is cut off run on. What has become of
a trial is in the head's database, and the workers are those of `trainlab worker` (see `tethered`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainlab import extras, network
from trainlab.errors import UserError
from trainlab.run.signals import handled_by
from trainlab.sweeps import tethered, worker
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.loop import Agenda, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Queue

PORT = 6379  # Ray's own
AUTO = "auto"  # the cluster that this machine is a node of
ANSWERS_WITHIN = 5.0  # seconds for the cluster to take a connection, and
TOLD_WITHIN = 60.0  # to say what it has
GLANCE = 0.2  # seconds between two looks
AGAIN = 1.0  # seconds between two tables, and between two words to those that are to stop
REPORTED_AFTER = 10.0  # seconds, until it is said that workers wait for room
ENDS_WITHIN = 15.0  # seconds for workers to end when no trial is left, and after a second signal
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray would tell its makers of each cluster
_ASK = """
import json, sys
import ray
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
    known = {"nodes": [each["Resources"] for each in ray.nodes() if each["Alive"]]}
except Exception as error:
    known = {"error": str(error)}
print()
print(json.dumps(known))
"""
_ADDRESS = re.compile(r"(\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]/]+))(:(?P<port>\d{1,5}))?")
_LACKS = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers, and what each actor takes of it.

    Attributes:
        address: As it was given.
        places: How many trials at a time each actor runs: more than one where they share its GPU.
        gpu: Whether each has a GPU.
        cpus: How many CPUs each has.
    """

    address: str
    places: tuple[int, ...]
    gpu: bool
    cpus: int

    def __str__(self) -> str:
        count = sum(self.places)
        shared = f", {max(self.places)} trials on each GPU" if max(self.places) > 1 else ""
        return f"{count} slots of Ray at {self.address}, on nodes with {self.share} each{shared}"

    @property
    def share(self) -> str:
        """What an actor takes of a node, for people."""
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"1 GPU and {cpus}" if self.gpu else cpus


def find(address: str, slots: int | None, *, gpus: bool | None = None, per_gpu: int = 1) -> Cluster:
    """Connect to a cluster, and share it out.

    Args:
        address: HOST[:PORT] of Ray's head, or 'auto' on one of the cluster's nodes.
        slots: Trials at a time, on all nodes together.
        gpus: Whether each has a GPU; by default where the cluster has any.
        per_gpu: Trials that share one.

    Raises:
        UserError: It can't be reached, or not shared like that.
    """
    extras.need("ray", "--ray")
    if slots is None or slots < 1:
        raise UserError("--ray: say how many trials are to run at a time on the whole cluster: --slots 8")
    if per_gpu < 1:
        raise UserError(f"--per-gpu {per_gpu}: expected a number above 0.")
    _check(address)
    nodes = _nodes(address)
    gpu = any(each.get("GPU", 0) >= 1 for each in nodes) if gpus is None else gpus
    if per_gpu > 1 and not gpu:
        raise UserError(f"--per-gpu {per_gpu}: the cluster has no GPU. Say --slots alone.")
    share = per_gpu if gpu else 1
    places = [share] * (slots // share) + ([slots % share] if slots % share else [])
    return Cluster(address, tuple(places), gpu, _cpus(nodes, len(places), gpu))


def _cpus(nodes: Sequence[Mapping[str, float]], actors: int, gpu: bool) -> int:
    """Return how many CPUs each actor may have so that all find room; 1 where more nodes must come first."""
    for count in range(int(max((each.get("CPU", 0) for each in nodes), default=1)), 1, -1):
        room = [min(each.get("CPU", 0) // count, each.get("GPU", 0) if gpu else actors) for each in nodes]
        if sum(map(int, room)) >= actors:
            return count
    return 1


def _check(address: str) -> None:
    """Raise UserError for what is no address, for one of the internet, and where nobody answers."""
    if address == AUTO:
        return
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < (port := int(found["port"] or PORT)) < 1 << 16:
        raise UserError(
            f"--ray {address}: expected HOST or HOST:PORT of Ray's head, or {AUTO} on a node of the cluster."
        )
    host = found["v6"] or found["host"]
    try:
        if public := sorted(filter(network.is_public, network.addresses(host, port))):
            raise UserError(
                f"--ray {address}: {public[0]} is an address of the internet, and whoever reaches a Ray "
                "cluster executes what he likes on it. Join by an address of a private network or a VPN."
            )
        socket.create_connection((host, port), ANSWERS_WITHIN).close()
    except (OSError, UnicodeError) as error:  # the latter: of a name that can be nobody's, such as a..b
        said = getattr(error, "strerror", None) or error
        raise UserError(
            f"--ray {address}: nobody answers there ({said}). Expected the address of a "
            "cluster's head, which `ray start --head` prints."
        ) from None


def _nodes(address: str) -> list[Mapping[str, float]]:
    """Return what each node that lives has.

    Asked in a process of its own: Ray waits minutes for a port that is something else's, and heeds no signal.
    """
    words = [sys.executable, "-c", _ASK, _full(address)]
    try:
        done = subprocess.run(
            words, env=os.environ | QUIET, capture_output=True, check=False, timeout=TOLD_WITHIN
        )
        printed, said = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        printed, said = b"", error.stderr or b""
    if b"InvalidAuthToken" in said:
        raise UserError(
            f"--ray {address}: the cluster asks for its token. RAY_AUTH_MODE=token into the environment, and "
            "the token into RAY_AUTH_TOKEN or the file ~/.ray/auth_token"
        )
    if (known := _told(printed)) is None:
        raise UserError(
            f"--ray {address}: what answers there is no Ray that this one understands: nothing was heard of "
            f"it for {TOLD_WITHIN:.0f} s."
        )
    if "error" in known:
        raise UserError(f"--ray {address}: {explained(str(known['error']))}")
    return known["nodes"]


def _told(printed: bytes) -> dict[str, Any] | None:
    """Return what `_ASK` has printed, behind which Ray may print too."""
    for line in reversed(printed.splitlines()):
        with contextlib.suppress(ValueError):
            known = json.loads(line)
            if isinstance(known, dict) and known.keys() & {"nodes", "error"}:
                return known
    return None


def _full(address: str) -> str:
    """Return an address with its port."""
    return address if address == AUTO or ":" in address.rpartition("]")[2] else f"{address}:{PORT}"


def explained(said: str) -> str:
    """Return what an error of Ray's means, and what to do."""
    words = " ".join(said.split())
    if lacking := _LACKS.search(words):
        return (
            f"a node lacks {lacking[1]}. Every node needs this one's environment: the same Python, Ray and "
            "trainlab[ray], and what the program imports."
        )
    if "Could not find any running Ray" in words:
        return "this machine is no node of a cluster. Name the cluster's head: --ray HOST"
    if "ersion mismatch" in words:
        return f"{words} Start both from the same environment."
    return f"{words} Start the sweep on a node of the cluster, from the environment that Ray runs in there."


def lead(
    ordered: Definition,
    cluster: Cluster,
    *,
    at: str | None = None,
    logs: Path | None = None,
    show: Callable[[Queue, bool], None] | None = None,
) -> int:
    """Lead a sweep whose trials run on a cluster, until each has ended (see `worker.lead`).

    Raises:
        UserError: No node can work on it.
    """
    os.environ |= QUIET
    import ray

    logs = worker.logs_folder(logs)
    with worker.leading(ordered, at, logs) as queue:
        task = {"at": at or ordered.at, "name": ordered.name, "logs": str(logs)}
        ray.init(_full(cluster.address), log_to_driver=False, logging_level="ERROR")
        try:
            return Crew(queue, cluster, show).run(task) or worker.outcome(queue)
        finally:
            ray.shutdown()  # ends the actors; a worker that is left saves checkpoints first


@dataclass
class Member:
    """An actor of a sweep: what Ray calls it, and the answers that it owes us."""

    actor: Any
    begun: Any
    work: Any
    has_begun: bool = False


@dataclass
class Crew:
    """The actors of a sweep, watched until they have ended."""

    queue: Queue
    cluster: Cluster
    show: Callable[[Queue, bool], None] | None
    members: list[Member] = field(default_factory=list)  # who haven't ended
    _stops: list[int] = field(default_factory=list)
    _mistakes: list[str] = field(default_factory=list)
    _finished: bool = False  # whether one has ended because no trial is left
    _next: Agenda = field(default_factory=Agenda)

    def run(self, task: dict[str, Any]) -> int:
        """Start the actors, and wait; return the exit code."""
        with handled_by(self._stops.append):
            self._start(task)
            self._next.due("report", REPORTED_AFTER)
            over: float | None = None
            insisted: float | None = None
            while self.members:
                self._look()
                if self._stops:
                    self._stop()
                if len(self._stops) > 1:
                    # a worker whose node was lost, with no other that has room, answers nobody
                    insisted = insisted or time.monotonic()
                    if time.monotonic() - insisted > ENDS_WITHIN:
                        say("workers do not answer; their trials go on once the sweep is resumed")
                        break
                left = self._left()
                if left is False and over is None:
                    over = time.monotonic()
                if over is not None and (self._stops or time.monotonic() - over > ENDS_WITHIN):
                    break
                if over is not None:
                    self._dismiss()
                elif not self._stops and self._next.due("report", float("inf")):
                    self._report()
        if self.show:
            with contextlib.suppress(QueueError):
                self.show(self.queue, True)
        if self._stops:
            return 128 + self._stops[0]
        if self._mistakes and not self._finished and over is None:
            raise UserError(self._mistakes[0])
        return 0

    def _start(self, task: dict[str, Any]) -> None:
        import ray

        place = ray.remote(concurrency_groups={"beside": 2})(tethered.Place)
        wanted = {"num_cpus": self.cluster.cpus, "num_gpus": int(self.cluster.gpu)}
        for slots in self.cluster.places:
            actor = place.options(
                max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD", **wanted
            ).remote()
            known = tethered.Task(**task, slots=slots, gpu=self.cluster.gpu, cpus=self.cluster.cpus)
            begun = actor.begun.options(concurrency_group="beside").remote()
            self.members.append(Member(actor, begun, actor.work.remote(known)))

    def _look(self) -> None:
        """Wait a moment for what the actors answer."""
        import ray

        works = {each.work: each for each in self.members}
        done, _ = ray.wait([*works], num_returns=len(works), timeout=GLANCE)
        begun = {each.begun: each for each in self.members if not each.has_begun}
        for each in ray.wait([*begun], num_returns=len(begun), timeout=0)[0] if begun else ():
            begun[each].has_begun = True
        for each in done:
            self.members.remove(works[each])
            try:
                code, said = ray.get(each)
            except Exception as error:  # Ray's, of an actor that can't be, whatever it is about
                code, said = 1, f"--ray {self.cluster.address}: {explained(str(error))}"
            self._finished = self._finished or code == 0
            if code and not self._stops and (code > 128 or not said):
                said = f"a worker ended with the code {code}, and trials may wait still. {said}".rstrip()
                said = f"--ray {self.cluster.address}: {said}"
            if said and said not in self._mistakes:
                self._mistakes.append(said)
                if self.members or self._finished:
                    say(f"one worker has ended: {said}")

    def _left(self) -> bool | None:
        """Tell whether a trial waits or runs, and after a stop whether one runs; show it. None: unknown."""
        if not self._next.due("show", AGAIN):
            return None
        states = ("running",) if self._stops else ("running", "waiting")
        try:
            if self.show:
                self.show(self.queue, False)
            return any(each.state in states for each in self.queue.trials())
        except QueueError as error:
            if not error.passing:
                raise
            if self._next.due("gone", float("inf")):
                say(f"{error} The workers go on; it is asked again each second.")
            return None

    def _stop(self) -> None:
        """Ask all workers to end with checkpoints; after a second signal, without."""
        if self._next.due("say", float("inf")):
            say("stopping: each run saves a checkpoint and waits for the sweep to be resumed")
        self._dismiss()
        if self._next.due("stop", AGAIN):  # said again to one that was lost and has begun anew
            for each in self.members:
                each.actor.stop.options(concurrency_group="beside").remote(len(self._stops) > 1)

    def _dismiss(self) -> None:
        """End the actors for which there was no room yet."""
        import ray

        for each in [each for each in self.members if not each.has_begun]:
            ray.kill(each.actor, no_restart=True)
            self.members.remove(each)

    def _report(self) -> None:
        waiting = sum(not each.has_begun for each in self.members)
        if waiting:
            count = len(self.cluster.places)
            say(f"{waiting} of {count} workers wait for nodes with {self.cluster.share} free")
