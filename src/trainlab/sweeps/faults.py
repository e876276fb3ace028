"""What the database of a sweep can say, as a sentence, and whether it is worth asking again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.sweeps import database

if TYPE_CHECKING:
    from collections.abc import Iterator


class QueueError(UserError):
    """The sweep's database can't be reached, or holds no such sweep.

    `passing` tells whether it is worth asking again: the database is gone or busy, not damaged.
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@contextlib.contextmanager
def explained(where: str, name: str) -> Iterator[None]:
    """Turn what a database can say into a sentence."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # the last of them: what Optuna and we say to tables that somebody has written into
        known = (SQLAlchemyError, OptunaError, OSError, RuntimeError, LookupError, ValueError, TypeError)
        if not isinstance(error, known + database.server_errors()):
            raise
        said, kind = database.fault(error)
        hint = {
            "passing": "The trials that run go on. Is there room on its disk, and is it up? trainlab doctor",
            "refused": f"Put its password into the environment, {database.PASSWORDS[0]}, and correct --at.",
            "deleted": "Its runs are whole, and those that run go on. What there is: trainlab sweep list",
            "damaged": f"The runs are whole, and the study can be made anew: trainlab sweep rebuild {name}",
        }[kind]
        raise QueueError(f"{where}: {printable(said)[:300]}. {hint}", passing=kind == "passing") from error
