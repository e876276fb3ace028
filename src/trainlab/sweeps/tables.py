"""Whether a database has the tables of this very Optuna, as it asks itself, without Alembic where it has.

Alembic changes old tables into new ones, and takes 15 MiB of every process that imports it, for days of a
leading one. Whatever is not just as this Optuna makes it is still left to it.
"""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages._rdb import models, storage

_TABLE = sqlalchemy.table("alembic_version", sqlalchemy.column("version_num"))
_NAMED = re.compile(r'^(down_)?revision = "(.+)"$', re.MULTILINE)


class Versions(storage._VersionManager):
    """Knows the version of a database's tables."""

    def _init_alembic(self) -> None:
        """Write the version into a database that was made just now."""
        self._current = False
        if (head := newest()) is not None:
            with self.engine.begin() as connection:
                if sqlalchemy.inspect(connection).has_table(_TABLE.name):
                    found = connection.execute(sqlalchemy.select(_TABLE.c.version_num)).scalars().all()
                    self._current = found == [head]
                elif _is_new(connection):
                    connection.exec_driver_sql(
                        f"CREATE TABLE {_TABLE.name} (version_num VARCHAR(32) NOT NULL, "
                        f"CONSTRAINT {_TABLE.name}_pkc PRIMARY KEY (version_num))"
                    )
                    connection.execute(sqlalchemy.insert(_TABLE).values(version_num=head))
                    self._current = True
        if not self._current:
            super()._init_alembic()

    def check_table_schema_compatibility(self) -> None:
        """Raise RuntimeError for tables of another Optuna."""
        if not self._current:
            super().check_table_schema_compatibility()


def newest() -> str | None:
    """Return the version of this Optuna's tables: the one of its changes on which no other one builds."""
    files = Path(storage.__file__).with_name("alembic").glob("versions/*.py")
    named = [each for file in files for each in _NAMED.findall(file.read_text())]
    heads = {name for below, name in named if not below} - {name for below, name in named if below}
    return heads.pop() if len(heads) == 1 else None


def _is_new(connection: sqlalchemy.Connection) -> bool:
    """Tell whether this Optuna has made the tables, and nothing is in them yet."""
    made = sqlalchemy.select(models.VersionInfoModel.__table__)
    of_ours = [(each.schema_version, each.library_version) for each in connection.execute(made)]
    studies = sqlalchemy.select(models.StudyModel.__table__.c.study_id).limit(1)
    return of_ours == [(models.SCHEMA_VERSION, optuna.__version__)] and connection.scalar(studies) is None
