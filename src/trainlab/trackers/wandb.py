"""Weights & Biases: online with a key and a network, else offline, in `logs/.wandb`."""

from __future__ import annotations

import os
import socket
import uuid
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainlab.trackers import Point, Subject, Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = ".wandb"  # the one name beside `wandb` that its library knows for its files
SECONDS = 3.0  # for its server to answer


class WeightsAndBiases(Tracker):
    """A run of its own in the project WANDB_PROJECT, or 'trainlab', grouped by experiment."""

    def start(self, subject: Subject) -> str:
        """Begin, or go on with the known run; return its id."""
        # before the import: it would else ask for the host of its error reports, even offline
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # not in the run's own folder: it makes links there, which no archive may hold
        (subject.logs / FOLDER).mkdir(exist_ok=True)
        name = subject.known or uuid.uuid4().hex[:8]
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "trainlab",
            group=subject.experiment,
            name=subject.name,
            id=name,
            resume="allow",
            config=subject.config,
            dir=subject.logs,
            mode=mode(),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",  # what is printed may hold what is nobody's business, and so may code
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,  # `vitals/...` are there
                silent=True,
                init_timeout=30,
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return name

    def log(self, points: Sequence[Point]) -> None:
        """Send the points, those of a step together."""
        for step, some in groupby(points, key=lambda point: point.step):
            self._run.log({"step": step} | {point.tag: point.value for point in some})

    def finish(self, status: str, reason: str | None) -> None:
        """End the run there: finished, or failed; the exact word and the reason are in its summary."""
        self._run.summary.update({"status": status, "reason": reason or ""})
        self._run.finish(exit_code=0 if status == "finished" else 1)


def mode() -> Any:
    """Return WANDB_MODE, or online where there is a key and its server can be reached, else offline."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    from wandb.sdk.lib import wbauth

    address = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    known = os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=address)
    return "online" if known and _answers(address) else "offline"


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), SECONDS).close()
    except OSError:
        return False
    return True


TRACKER = WeightsAndBiases
