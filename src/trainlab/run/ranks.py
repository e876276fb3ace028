"""One run in several processes: the first one records it, and the others know where it is.

torchrun starts each of them alike. Those but the first get a `Follower` wherever the code makes a Run, or
unpickles one: it has the folder and the checkpoint that the first process has, by torchrun's own store.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainlab.config import Config
from trainlab.run import signals
from trainlab.run.checkpoint import STEP
from trainlab.run.metrics import given_directions
from trainlab.run.recorder import Recorder
from trainlab.run.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNT = itertools.count()  # of the runs that this process has made
_served: list[Any] = []  # the store that lives as long as this process, where no agent has one


def tell(run: Run) -> None:
    """Tell the other processes of torchrun, if there are any, which run the first one has made."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit.register(_leave)
        known = [str(run.folder), run.checkpoint and str(run.checkpoint), run.resumed]
        _store(serves=True).set(_key(), json.dumps(known))


class Follower(Run):
    """A run in each process but the first: it writes nothing, whatever it is asked to."""

    def __init__(
        self,
        experiment: str,
        config: Config | Mapping[str, Any] | None = None,
        *,
        metrics: Any = (),
        **_: Any,
    ) -> None:
        Recorder.__init__(self)
        self.experiment = experiment
        self.config = config.model_dump() if isinstance(config, Config) else dict(config or {})
        self._settings = type(config) if isinstance(config, Config) else None
        self._summary.directions |= given_directions(metrics)
        atexit.register(_leave)
        folder, checkpoint, self.resumed = json.loads(_store().get(_key()))
        self.folder, self.name = Path(folder), Path(folder).name
        self.checkpoint = checkpoint and Path(checkpoint)
        self._blocks = ExitStack()
        self.step = 0

    def __enter__(self) -> Self:
        """Let SIGTERM end it as it does the first."""
        self._blocks.enter_context(signals.sigterm_raises())
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave the end to the first process."""
        self._blocks.__exit__(*error)

    @property
    def writer(self) -> Any:
        """A writer that writes nothing, whatever it is asked to."""
        return _Nowhere()

    def save(self, state: Mapping[str, Any]) -> Path:  # noqa: ARG002
        """Do nothing; return the path that the first process writes."""
        return self.checkpoints / f"{STEP}{self.step:08d}.ckpt"

    def _nothing(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    log = update = rewind = refresh = finish = _nothing
    log_text = log_figure = log_image = log_histogram = log_embedding = _nothing


class _Nowhere:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _leave() -> None:
    """Leave the group: its threads would abort a process (exit code -6) that ends with them."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _store(*, serves: bool = False) -> Any:
    """Return the store of torchrun's processes: the agent's, or the first process's, which then `serves`.

    torch itself finds it again in this process (`multi_tenant`), whenever it makes its group.
    """
    from torch.distributed import TCPStore

    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = serves and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(*place, is_master=serves, multi_tenant=True, wait_for_workers=False)
    if serves:
        _served.append(store)
    return store


def _key() -> str:
    """Return what this run is called there; restarts count where the store outlives them, the agent's."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") if agent else ""
    return f"trainlab/run/{attempt}/{next(_COUNT)}"
