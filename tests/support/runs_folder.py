"""Run folders for the tests of the table, made without torch, and what the command does with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from typer.testing import CliRunner

from trainlab.cli.runs import app
from trainlab.run import lock, metrics, record


def make(logs, label, *, minutes_ago=0, status="finished", **fields):
    """Make `logs/<experiment>/<run>` with a record, and return the folder."""
    folder = logs / label
    folder.mkdir(parents=True)
    started = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    known_ways = {tag: way for tag in fields.get("best", {}) if (way := metrics.well_known(tag))}
    fields = {"directions": known_ways} | fields
    known = record.Record(
        experiment=folder.parent.name,
        run=folder.name,
        status=status,
        started=started,
        ended=None if status == "running" else started + timedelta(seconds=200),
        seconds=None if status == "running" else 200.0,
        **fields,
    )
    record.write(folder, known)
    return folder


def points(**values):
    """Return {tag: point}; '_' in a name stands for '/'."""
    return {tag.replace("_", "/"): {"value": value, "step": 1} for tag, value in values.items()}


def train(run):
    """Log as the first of several training processes does."""
    for step in range(3, 6):
        run.log({"train/loss": 1.0 / step}, step)
    run.log_text("note", "from the other process", 5)
    run.update(best_checkpoint={"path": "checkpoints/best.ckpt"})
    run.finish("failed", "it is not this process's to end")


def foreign(folder, count=3):
    """Make event files such as any other program writes, and return the folder."""
    writer = EventFileWriter(str(folder))
    for step in range(count):
        value = Summary.Value(tag="val/loss", simple_value=1 / (step + 1))
        writer.add_event(Event(wall_time=1e9 + step, step=step, summary=Summary(value=[value])))
    writer.close()
    return folder


def call(logs, *words):
    """Return what `trainlab runs WORDS` prints, in this process."""
    done = CliRunner().invoke(app, ["--logs", str(logs), *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def content(folder):
    """Return every file below a folder but our locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != lock.RUN)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
