"""Waiting for what was asked to end, for whoever can't wait long: a server."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PATIENCE = 20.0  # seconds; what was asked ends all the same

_pool = ThreadPoolExecutor(64, "ending")
_under_way: dict[Path, Future[str]] = {}  # by the folder of a run or a sweep
_lock = threading.Lock()


def ended(calls: Mapping[Path, Callable[[], str]]) -> str:
    """Call what asks something to end and waits for that; return what the calls say.

    Each is made once, however many ask meanwhile: a second signal would end a run before it has saved. After
    `PATIENCE` it is said that it takes longer.

    Args:
        calls: By the folder of what ends.

    Raises:
        UserError: All of them have refused.
    """
    with _lock:
        for folder, call in calls.items():
            if folder not in _under_way or _under_way[folder].done():
                _under_way[folder] = _pool.submit(call)
        asked = {folder: _under_way[folder] for folder in calls}
    wait(asked.values(), PATIENCE)
    said, refused = [], []
    for folder, each in asked.items():
        if not each.done():
            said.append(f"{folder.name} is asked to end: it finishes its step and saves a checkpoint first.")
        elif isinstance(error := each.exception(), UserError):
            refused.append(str(error))
        else:
            said.append(each.result())
    if not said:
        raise UserError(" ".join(refused))
    return " ".join(said + refused)
