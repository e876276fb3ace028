"""Training in several processes, each with its share of every batch (DDP): torchrun's, in both ways.

Under `torchrun` the processes are there already. Elsewhere, in a notebook's cell too, the process that calls
`fit` starts them by torchrun's own launcher, sends them the Trainer, and takes back what became of it.
"""

from __future__ import annotations

import ast
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import (
    _GlobalStateSnapshot,
    _MultiProcessingLauncher,
)
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainlab.errors import UserError
from trainlab.run import grace
from trainlab.run.run import HOSTS
from trainlab.run.signals import STOPS, Terminated
from trainlab.training.workers import threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lightning

    from trainlab.training.config import TrainingConfig

LOOPBACK = "lo"  # gloo would look up this host's name, which a container without a network lacks
MAIN = "__main__"
# A backbone's part that the loss doesn't reach, such as a pooler, is no mistake on one device either.
OPTIONS: dict[str, Any] = {"find_unused_parameters": True}


def processes_of(config: TrainingConfig) -> dict[str, Any]:
    """Return what Lightning's Trainer is to take as `devices`, `num_nodes` and `strategy`."""
    if TorchElasticEnvironment.detect():  # torchrun has decided, on each of its hosts
        here, hosts = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"))
        options = dict(OPTIONS)
        if HOSTS in os.environ:
            options["timeout"] = timedelta(seconds=config.host_timeout)
        return {"devices": here, "num_nodes": hosts, "strategy": Started(**options)}
    config.check_nodes()
    alone = config.devices == 1 or config.accelerator == "tpu"  # whose processes are Lightning's own
    return {"devices": config.devices, "strategy": "auto" if alone else Processes()}


def process_warning(trainer: lightning.Trainer) -> str:
    """Return what is wrong with how the processes of a Trainer were started, '' where nothing is."""
    if not TorchElasticEnvironment.detect():
        again = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher) and trainer.is_global_zero
        if not again or trainer.num_devices == 1:
            return ""
        count = trainer.num_devices
        wrong = f"Lightning has started this script {count} times, and each time it has made a run"
    else:
        count = int(os.environ["WORLD_SIZE"])
        if count == trainer.world_size or os.environ["RANK"] != "0":
            return ""
        wrong = f"torchrun has started {count} processes, and each trains the whole by itself"
    return (
        f"{wrong}. Write lightning.Trainer(devices={count}, strategy='ddp', ...), and start it by "
        f"torchrun --nproc-per-node {count} SCRIPT; or take trainlab.Trainer and devices={count}."
    )


class Started(DDPStrategy):
    """DDP between the processes that torchrun has started; a notebook's kernel may be one of them."""

    def _configure_launcher(self) -> None:
        self._launcher = None  # Lightning's own would refuse a notebook, and start nothing here anyway


class Processes(DDPStrategy):
    """DDP between new processes: over gloo on the CPU, over NCCL on GPUs."""

    def __init__(self) -> None:
        super().__init__(start_method="spawn", cluster_environment=LightningEnvironment(), **OPTIONS)

    def _configure_launcher(self) -> None:
        self._launcher = _Launcher(self)


class _Launcher(_MultiProcessingLauncher):
    """Sends the Trainer to the processes, and brings back what the first of them made of it."""

    @property
    def is_interactive_compatible(self) -> bool:
        return True  # no fork, and no second look at the notebook

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Call a Trainer's `function` in each process; return what process 0 returned.

        Raises what the process that failed first raised; UserError for one that was killed, and for
        something that can't be sent.
        """
        trainer.lightning_module.cpu()  # else each process would first load it into the same GPU
        try:
            work = pickle.dumps((trainer, function, args, kwargs, _GlobalStateSnapshot.capture()))
        except Exception as error:  # PicklingError, AttributeError, TypeError ...: each class has its own
            raise UserError(
                f"This can't be sent to another process: {error}. For several devices model, data and "
                "callbacks must be picklable: no lambda, no class or function inside a function."
            ) from error
        try:
            with _main_for(work), _ending(trainer.run.folder), tempfile.TemporaryDirectory() as errors:
                outcome = _launched(trainer.num_devices, work, Path(errors))
        except BaseException:
            trainer.callbacks = []  # each process has called its own ones' on_exception
            raise
        finally:
            trainer.run.refresh()
        return _take_over(trainer, pickle.loads(outcome))


def _launched(count: int, work: bytes, errors: Path) -> bytes:
    """Do the work in so many processes, which put what they raise into the folder `errors`."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="trainlab",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # any port that is free
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=int(grace.LONGEST),  # the current step, and a save that has begun
    )
    try:
        return elastic_launch(config, _take_part)(work, str(errors))[0]
    except SignalException as stop:
        file = errors / "0"
        failure = pickle.loads(file.read_bytes()) if file.exists() and file.stat().st_size else None
        if isinstance(failure, Exception):  # such as a checkpoint that can't be written
            raise failure from None
        raise (Terminated() if stop.sigval == signal.SIGTERM else KeyboardInterrupt()) from None
    except ChildFailedError as failed:
        files, noticed = [errors / str(rank) for rank in range(count)], failed.failures
        for rank in sorted(range(count), key=lambda rank: rank not in noticed):
            # because of a death the others fail too, and may be killed for that
            if not files[rank].exists():
                raise UserError(
                    f"Process {rank} of {count} did not start: its output above says why. Or start this "
                    f"script by torchrun: torchrun --nproc-per-node {count} SCRIPT"
                ) from None
            if not files[rank].stat().st_size:
                raise UserError(
                    f"Process {rank} of {count} was killed, so the training ended. Mostly the memory was "
                    "full: take a smaller batch or fewer devices. What was saved can be resumed."
                ) from None
        in_order = sorted(files, key=lambda file: file.stat().st_mtime_ns)
        failures = (pickle.loads(file.read_bytes()) for file in in_order)
        raise next((each for each in failures if isinstance(each, Exception)), Terminated()) from None


def _take_part(work: bytes, errors: str) -> bytes | None:
    """Do one process's share; return process 0's outcome."""
    from trainlab.training.logger import quiet

    rank = int(os.environ["RANK"])
    file = Path(errors, str(rank))
    file.touch()
    os.setpgid(0, 0)  # Ctrl-C in a terminal comes from the parent alone: two would end it at once
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no word on host names that a container lacks
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # which process has which rank
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
        warnings.simplefilter("ignore")
    else:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        trainer, function, args, kwargs, state = pickle.loads(work)
        state.restore()
        torch.set_num_threads(threads_for(trainer.num_devices))
        try:
            with quiet():
                returned = function(*args, **kwargs)
        except BaseException as error:
            call._call_callback_hooks(trainer, "on_exception", error)
            raise
        if rank:
            return None
        fitting = trainer.state.fn == TrainerFn.FITTING
        known = {
            "returned": returned,
            "weights": trainer.lightning_module.state_dict() if fitting else None,
            "loops": trainer.fit_loop.state_dict(),
            "callbacks": call._call_callbacks_state_dict(trainer),
            "metrics": (trainer.callback_metrics, trainer.logged_metrics),
            "state": trainer.state,
        }
        return pickle.dumps(move_data_to_device(known, "cpu"))
    except BaseException as error:
        if isinstance(error, SystemExit):
            error = SystemExit(error.code)  # Terminated can't travel
        error.add_note(f"In process {rank}:\n{''.join(traceback.format_exception(error))}")
        try:
            pickle.loads(content := pickle.dumps(error))
        except Exception:
            content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        file.write_bytes(content)
        raise SystemExit(1) from None


@contextmanager
def _ending(folder: Path) -> Iterator[None]:
    """Let no process outlive the block, and no save be cut; put back what torchrun's launcher changes."""
    before = set(multiprocessing.active_children())
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOPS}
    logging.disable(logging.CRITICAL)  # each process's failure comes as an exception
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items() if in_main_thread else ():
            signal.signal(number, handler)
        left = set(multiprocessing.active_children()) - before
        deadline = grace.Deadline(folder, 0.0)
        while any(each.is_alive() for each in left) and not deadline.over():
            time.sleep(0.05)
        for process in left:
            process.kill()
            process.join()


@contextmanager
def _main_for(work: bytes) -> Iterator[None]:
    """Let new processes read the caller's script only where the work needs what is defined in it.

    Raises UserError where that is in a notebook, or in a script that would start all over when read.
    """
    main = sys.modules[MAIN]
    if MAIN.encode() in work:
        file = getattr(main, "__file__", None)
        if file is None:
            raise UserError(
                "For several devices, classes and functions must be in a file that other processes can "
                "import: move what this notebook defines into a module, and import it from there."
            )
        statements = ast.parse(Path(file).read_bytes()).body
        if not any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in statements):
            raise UserError(
                f"For several devices, other processes read {file} too, and would start over. Put what it "
                'does under `if __name__ == "__main__":`, or what it defines into a module of its own.'
            )
    else:
        sys.modules[MAIN] = types.ModuleType(MAIN)
    try:
        yield
    finally:
        sys.modules[MAIN] = main


def _take_over(trainer: lightning.Trainer, known: dict[str, Any]) -> Any:
    """Make the Trainer and its module what they would be had they trained here."""
    trainer.state = known["state"]
    if known["weights"] is not None:
        trainer.lightning_module.load_state_dict(known["weights"])
        trainer.fit_loop.load_state_dict(known["loops"])
    call._call_callbacks_load_state_dict(trainer, {"callbacks": known["callbacks"]})
    trainer.callback_metrics.update(known["metrics"][0])
    trainer.logged_metrics.update(known["metrics"][1])
    return known["returned"]
