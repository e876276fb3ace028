"""Files that are nearly right: whatever is changed in them, the run beside them is listed, and soon."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runs_folder import foreign, make, points
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import events
from trainlab.runs import listing
from trainlab.runs import listing as remembered

ROUNDS = 60  # of each kind of file; some tenths of a second
SECONDS = 60.0  # for all of them, on a machine with other work: nothing takes time without end
ODD = [
    *(None, True, -1, 0, 2**63, 10**299, 1e308, -0.0, "", "x" * 5000, "NaN", "-Infinity", "\x1b[2J"),
    *([], {}, [[]], {"": {}}, {"value": "x"}, "\ud800", "1e400"),
    *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"),
]
SYNTAX = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b"\xff", b"NaN", b"-Infinity", b"1" * 5000]
COMMANDS = [
    *([], ["--format", "csv"], ["--format", "json"], ["--format", "markdown"]),
    *(["--sort", "val/loss"], ["--where", "val/loss>0"], ["--columns", "run,started,reason"]),
    *(["show", "odd"], ["diff", "odd", "good"]),
]


def changed_text(text: bytes, rng: random.Random) -> bytes:
    """Return text with bytes flipped, cut out, doubled or put in."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 1, 4, 30, 1000]))
        put = rng.choice([b"", bytes([rng.randrange(256)]), rng.choice(SYNTAX), text[start:end] * 2])
        text = text[:start] + put + text[end:]
    return text


def changed_value(value, rng: random.Random):
    """Return JSON with one value, somewhere in it, that is another one or is gone."""
    if rng.random() < 0.2 or not value or not isinstance(value, dict | list):
        return rng.choice(ODD)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    if rng.random() < 0.1:
        del copy[key]
    else:
        copy[key] = changed_value(copy[key], rng)
    return copy


@pytest.fixture
def logs(tmp_path):
    good = make(tmp_path / "logs", "news/good", last=points(val_loss=1.0), best=points(val_loss=1.0))
    for path in events.files(foreign(tmp_path / "logs" / "foreign")):
        os.utime(path, (1e9, 1e9))
    known = json.loads((good / "run.json").read_text())
    known |= {"config": {"margin": 1.0, "sizes": [1, 2]}, "git": {"commit": "c" * 40, "dirty": False}}
    known |= {"resumes": [{"at": known["started"], "step": 1, "checkpoint": "x"}], "tags": ["a"], "seed": 1}
    (tmp_path / "logs" / "news" / "odd").mkdir()
    (tmp_path / "logs" / "news" / "odd" / "run.json").write_text(json.dumps(known, indent=2))
    return tmp_path / "logs"


def check(logs: Path, rng: random.Random) -> None:
    """Assert that the good run is shown as ever, in the table and in one of its other forms."""
    (good,) = [row for row in listing.rows(logs) if row.label == "news/good"]
    assert (good.status, good.last) == ("finished", {"val/loss": 1.0})
    words, place = rng.choice(COMMANDS), ["--logs", str(logs)]
    is_command = bool(words) and not words[0].startswith("-")
    done = CliRunner().invoke(app, [*words, *place] if is_command else [*place, *words])
    assert isinstance(done.exception, type(None) | UserError), (words, done.exception)


@pytest.mark.parametrize("kind", ["record as text", "record as values", "events", "memory"])
def test_whatever_is_changed_in_a_file_the_good_run_is_shown(logs, kind):
    rng = random.Random(kind)
    (events_file,) = events.files(logs / "foreign")
    listing.rows(logs)
    path = {"events": events_file, "memory": logs / remembered.FILE}.get(kind, logs / "news/odd/run.json")
    original = path.read_bytes()
    until = time.monotonic() + SECONDS
    for number in range(ROUNDS):
        if kind in ("record as text", "events") or (kind == "memory" and number % 2):
            content = changed_text(original, rng)
        else:
            value = changed_value(changed_value(json.loads(original), rng), rng)
            content = json.dumps(value).encode(errors="surrogatepass")
        path.write_bytes(content)
        try:
            check(logs, rng)
        except Exception as error:
            raise AssertionError(f"round {number}: {content[:3000]!r}") from error
        assert time.monotonic() < until
