"""A process that the terminal's end does not reach, and its first sign that it works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from trainlab import untrusted
from trainlab.cleaning import printable
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIGN = "TRAINLAB_FIRST_SIGN"  # the file descriptor on which whoever has started this process waits
_WORKS = b"1"


class FirstSign:
    """Tells whoever has started this process, once, that it works; does nothing where nobody waits."""

    def __init__(self) -> None:
        number = os.environ.pop(SIGN, "")
        self._descriptor = int(number) if number.isdecimal() else None

    def give(self) -> None:
        """Give the sign; a second call does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.write(descriptor, _WORKS)
                os.close(descriptor)
            except OSError:  # whoever waited is gone
                return


def start(words: Sequence[str], output: Path) -> None:
    """Start a command of ours, and wait for its first sign.

    Args:
        words: Behind `trainlab`.
        output: The file to which it prints, behind what is there.

    Raises:
        UserError: It has ended without one: what it said.
    """
    waits, sign = os.pipe()
    try:
        with untrusted.appended(output) as log:
            before = os.fstat(log.fileno()).st_size
            started = subprocess.Popen(
                [sys.executable, "-c", "from trainlab.cli import main; main()", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[sign],
                env=os.environ | {SIGN: str(sign)},
            )
    except OSError as error:
        os.close(waits)
        raise UserError(f"{output}: {error.strerror}.") from None
    finally:
        os.close(sign)
    with os.fdopen(waits, "rb") as pipe:
        works = pipe.read(1) == _WORKS
    if works or (code := started.wait()) == 0:
        return
    said = output.read_bytes()[before:].decode(errors="replace").strip()
    why = (
        said.rpartition("error: ")[2] if "error: " in said else (said.splitlines() or ["without a word"])[-1]
    )
    if code < 0:
        why = f"it was killed ({signal.Signals(-code).name})"
    raise UserError(f"It has ended at once: {printable(' '.join(why.split()))} All that it said: {output}")
