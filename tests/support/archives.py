"""What the tests of archives pack, and how they check that one is refused."""

from __future__ import annotations

import pytest

from runs_folder import call, content, foreign, make
from trainlab.errors import UserError
from trainlab.runs import trash


def ours_and_theirs(logs):
    """Make a run of ours and a foreign one; return their folder."""
    folder = foreign(make(logs, "news/a", tags=["baseline"]))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(bytes(range(256)) * 40)
    foreign(logs / "keras" / "deep" / "train")
    return logs


def refused(file, logs, match):
    """Restore, which must fail and leave everything as it was."""
    before = content(logs.parent)
    with pytest.raises(UserError, match=match):
        call(logs, "restore", file)
    assert content(logs.parent) == before
    assert not list((logs / trash.FOLDER).glob("*"))
