"""One host's part in a training over several: torchrun's elastic agent, started by `trainlab run --nodes`.

`python -m trainlab.hosts.agent FOLDER OWN NODES STORE DEVICES PROGRAM MODULE [ARGUMENT]...`

It meets the agents of the other hosts at the store, and starts the processes of this host (see `member`).
When a host is lost or comes back, all agents meet again, and all processes start anew from the last
checkpoint. When the store is lost, the agent waits for it. A process that failed by itself, and not because
it lost another one, takes this host out: starting it again would only repeat it.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousClosedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainlab.errors import UserError
from trainlab.headless.execution import ExitStatus, Screen, from_signal
from trainlab.hosts import rendezvous
from trainlab.hosts.member import FAILURE, FIRST
from trainlab.run import grace, lock, record
from trainlab.run.recorder import unwritable
from trainlab.run.signals import STOPS

if TYPE_CHECKING:
    from types import FrameType

STORE_AGAIN = 600.0  # seconds to wait for a store that is gone
GLANCE = 1.0  # seconds between two looks for it
SILENT = 10.0  # seconds without an answer of the store, after which this host ends its processes


@dataclass(frozen=True)
class Part:
    """What this host is to do.

    `folder` is the run's; `own` this host's, for its notebook and the words of its processes. `nodes` is how
    many hosts, '2' or '1:2'; `store` HOST:PORT; `devices` the processes of this host. `program` is the path
    of notebook or script, a module's name or '', and a script's arguments.
    """

    folder: Path
    own: Path
    nodes: str
    store: str
    devices: int
    program: list[str]


def main(part: Part) -> int:
    """Take part until the training has ended, here or everywhere; return the exit code."""
    screen, started, folder = Screen(), time.monotonic(), part.folder
    record.raise_oom_score(0)  # it watches over the run, and outlives it
    for each in STOPS:
        signal.signal(each, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # `trainlab run` had them blocked until here
    logging.disable(logging.CRITICAL)  # torch's agent logs each loss as an error of ours, with a traceback
    lock.attend(folder)
    try:
        end = _take_part(part, screen)
        if (part.own / FIRST).exists() and not lock.taken(folder, lock.RUN):
            seconds = record.read(folder).seconds or round(time.monotonic() - started, 3)
            record.write_end(folder, end.status, end.reason, seconds=seconds)
        elif end.code == UserError.exit_code:  # whoever watches would look into run.json for the sentence
            end = replace(end, code=1)
    except SignalException as stop:
        end = from_signal(signal.Signals(stop.sigval))
    except (OSError, UserError) as error:
        end = ExitStatus("failed", unwritable(folder, error), UserError.exit_code)
    finally:
        shutil.rmtree(part.own, ignore_errors=True)
    screen.line(f"this host: {end.status}" + (f", {end.reason}" if end.reason else ""))
    return end.code


def _take_part(part: Part, screen: Screen) -> ExitStatus:
    """Meet the other hosts, and train with them, as often as it takes; return how it ended."""
    least, most = rendezvous.nodes(part.nodes)
    place = rendezvous.endpoint(part.store)
    screen.line(f"waiting at {place} for {'' if least == most else f'{least} to '}{most} hosts")
    if most > 1 and ipaddress.ip_address(own := rendezvous.own_address(place)).is_loopback:
        screen.line(f"warning: {own} is this machine alone. For others join by an address that they reach.")
    threading.Thread(target=_fence, args=(place,), daemon=True).start()
    sessions = itertools.count()  # torch closes one for ever when a host has ended in it
    name = f"{part.folder.name}-{next(sessions)}"
    while True:
        if not _store_is_back(place, screen):
            return ExitStatus("failed", f"the store at {place} is gone", 1)
        options = rendezvous.launch_options(place, least, most, part.devices)
        config = LaunchConfig(run_id=name, shutdown_timeout=int(grace.LONGEST), **options)
        member = ["-m", "trainlab.hosts.member", str(part.folder), str(part.own), part.store, *part.program]
        try:
            elastic_launch(config, sys.executable)(*member)
            return ExitStatus("finished", None, 0)
        except SignalException as stop:
            return _failure(part.own) or from_signal(signal.Signals(stop.sigval))
        except ChildFailedError:
            lost = f"lost other hosts {rendezvous.RESTARTS} times"
            return _failure(part.own) or ExitStatus("failed", lost, 1)
        except RendezvousClosedError:
            if record.read(part.folder).status == "finished":
                return ExitStatus("finished", None, 0)
            name = f"{part.folder.name}-{next(sessions)}"
        except Exception as error:  # torch has many for a store that doesn't answer
            if failure := _failure(part.own):
                return failure
            screen.line(f"the store at {place} was lost ({type(error).__name__}): meeting again")


def _fence(place: rendezvous.Endpoint) -> None:
    """Let nobody wait for a store that is out of reach; as long as this process lives.

    torch's agent would, for a quarter of an hour, and let its processes train on. Meanwhile other hosts take
    this one for lost. With its connections ended, it ends the processes, and meets the others again.
    """
    known, heard = rendezvous.addresses(place), time.monotonic()
    while True:
        time.sleep(GLANCE)
        if rendezvous.answers(place):
            known, heard = rendezvous.addresses(place) or known, time.monotonic()
        elif time.monotonic() - heard > SILENT:
            with suppress(OSError, psutil.Error):  # what ends just now; the next look is soon
                rendezvous.hang_up(known, place.port)


def _store_is_back(place: rendezvous.Endpoint, screen: Screen) -> bool:
    """Wait for the store to answer, for long; tell whether it does."""
    deadline = time.monotonic() + STORE_AGAIN
    said = False
    while not rendezvous.answers(place):
        if time.monotonic() > deadline:
            return False
        if not said:
            screen.line(f"no store answers at {place}: waiting until it is started again")
            said = True
        time.sleep(GLANCE)
    return True


def _failure(own: Path) -> ExitStatus | None:
    """Return how a process of this host failed by itself, None where none did."""
    with suppress(OSError, ValueError):
        known: dict[str, Any] = json.loads((own / FAILURE).read_text())
        return ExitStatus("failed", known["reason"], known["code"])
    return None


def _stop(number: int, _: FrameType | None) -> None:
    raise SignalException("stopped", signal.Signals(number))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    _folder, _own, _nodes, _store, _devices, *_program = sys.argv[1:]
    sys.exit(main(Part(Path(_folder), Path(_own), _nodes, _store, int(_devices), _program)))
