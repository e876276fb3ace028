"""The tables of a study's database, whose version Optuna itself finds as it should be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import optuna
import pytest
from optuna.storages._rdb.storage import _VersionManager

from trainlab.sweeps import database, study, tables
from trainlab.sweeps.study import Study

# a process of its own: what this one has imported tells nothing
MAKE = """
import sys
from pathlib import Path
from trainlab.sweeps import database
from trainlab.sweeps.study import Study
study = Study(database.file_options(Path(sys.argv[1])))
with study.created("margins", "min"):
    pass
study.close()
Study(database.file_options(Path(sys.argv[1]))).close()
print([each for each in ("alembic", "mako", "torch", "pandas") if each in sys.modules])
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


def test_a_study_is_made_and_opened_without_alembic_and_optuna_finds_it_sound(path):
    done = subprocess.run([sys.executable, "-c", MAKE, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with sqlite3.connect(path) as connection:
        said = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    connection.close()
    theirs = _VersionManager.get_head_version
    storage = Study(database.file_options(path))._storage._backend
    assert said == [(tables.newest(),)] == [(theirs(storage._version_manager),)]
    found = optuna.load_study(study_name="margins", storage=f"sqlite:///{path}")
    assert found.direction is optuna.study.StudyDirection.MINIMIZE


def test_a_study_of_another_version_is_refused_in_optuna_s_words(path):
    Study(database.file_options(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    with pytest.raises(RuntimeError, match="no longer compatible with the table schema"):
        study.Study(database.file_options(path))


def test_a_database_of_an_optuna_before_alembic_is_left_to_optuna(path):
    Study(database.file_options(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.execute("UPDATE version_info SET schema_version = 11, library_version = '0.9.0'")
    connection.close()
    with pytest.raises(RuntimeError, match="no longer compatible"):
        Study(database.file_options(path))
