"""A run: one folder that holds everything about one training.

with Run("news", config) as run:
    run.log({"train/loss": loss}, step)
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainlab import folders
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.runs import hparams, interruption, lock, naming, record
from trainlab.runs.metrics import Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from torch.utils.tensorboard import SummaryWriter

    from trainlab.runs.record import Status

ADOPT = "TRAINLAB_RUN"  # the headless runner names here the folder that the notebook's first Run takes over
_FLUSH_SECONDS = 3.0  # how old the metrics in a running run's run.json may be


class Run:
    """Records one training in `logs/<experiment>/<UTC time>[-<name>]`.

    Use it as a context manager: leaving the block marks the run finished; an exception marks it failed and
    goes on up; Ctrl-C and SIGTERM mark it interrupted. `name` defaults to the settings that differ from
    their defaults. `metrics` names the tags that matter most: the table of runs shows them first.

    Attributes: `folder`, `name` (the folder's), `experiment`, `config` (a dict), `writer`.
    Raises UserError when the folder can't be made.
    """

    def __init__(  # noqa: PLR0913
        self,
        experiment: str,
        config: Config | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        seed: int | None = None,
        data: Mapping[str, Any] | None = None,
        metrics: Sequence[str] = (),
        logs: Path | None = None,
    ) -> None:
        self.config: dict[str, Any] = (
            config.model_dump() if isinstance(config, Config) else dict(config or {})
        )
        seed = self.config.get("seed") if seed is None else seed
        fields = {"config": self.config, "seed": seed, "data": data, "metrics": list(metrics)}
        if name is None and isinstance(config, Config):
            name = naming.of_changes(config.changes())

        self._process = os.getpid()
        self._ended = False
        self._blocks = ExitStack()
        self._summary = Summary()
        self._flushed = time.monotonic()
        self._writer: SummaryWriter | None = None
        self._adopted = self._adopt(fields)
        if not self._adopted:
            self._start(logs or folders.logs(), experiment, name, fields)
        if self.config:
            with self._telling():
                self.writer._get_file_writer().add_summary(hparams.session_start(self.config))

    def _adopt(self, fields: dict[str, Any]) -> bool:
        """Take over the folder that the headless runner made, if there is one and nobody else has it."""
        folder = Path(os.environ.pop(ADOPT, ""))  # popped: later runs, and child processes, make their own
        if not folder.name or not folder.is_dir():
            return False
        held = lock.hold(folder)
        if held is None:
            return False
        self._lock, self.folder, self.name, self.experiment = held, folder, folder.name, folder.parent.name
        # what the runner knows (the command line's seed, say) stays where this run says nothing
        said = {key: value for key, value in fields.items() if value not in (None, {}, [])}
        self._record = record.update(folder, **said, pid=self._process)
        return True

    def _start(self, logs: Path, experiment: str, name: str | None, fields: dict[str, Any]) -> None:
        self.folder = naming.new_folder(logs, experiment, name)
        self.name, self.experiment = self.folder.name, self.folder.parent.name
        with self._telling():
            held = lock.hold(self.folder)
            assert held is not None, "a folder made a moment ago has no other holder"
            self._lock = held
            self._record = record.create(self.folder, self.experiment, **fields)

    def __enter__(self) -> Self:
        """Start to watch how the block is left."""
        self._blocks.enter_context(interruption.sigterm_raises())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write how the block was left."""
        try:
            self.finish(*interruption.ending(error))
        except UserError as failure:
            if error is None:
                raise
            warnings.warn(f"The end of the run could not be written: {failure}", stacklevel=2)
        finally:
            self._blocks.__exit__(kind, error, trace)

    @property
    def writer(self) -> SummaryWriter:
        """Torch's SummaryWriter on the run's own folder, made when first used.

        Raises UserError once the run has ended.
        """
        if self._ended:
            raise UserError(
                f"The run {self.name} has ended: nothing can be logged to it any more. Start a new Run."
            )
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars, {tag: number}, at a step. NaN and infinity are numbers too."""
        for tag, value in metrics.items():
            number = float(value)
            with self._telling():
                self.writer.add_scalar(tag, number, step)
            self._summary.add(tag, number, int(step))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.update()

    def log_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, which TensorBoard shows as Markdown."""
        with self._telling():
            self.writer.add_text(tag, text, step)

    def log_figure(self, tag: str, figure: Any, step: int) -> None:
        """Write a Matplotlib figure as a picture, and close it."""
        with self._telling():
            self.writer.add_figure(tag, figure, step)

    def log_image(self, tag: str, array: Any, step: int) -> None:
        """Write a picture: [H, W], [H, W, C] or [C, H, W] with C of 1, 3 or 4; floats in 0..1, or bytes."""
        with self._telling():
            self.writer.add_image(tag, array, step, dataformats=_image_layout(array.shape))

    def log_histogram(self, tag: str, values: Any, step: int) -> None:
        """Write the distribution of an array of numbers of any shape."""
        with self._telling():
            self.writer.add_histogram(tag, values, step)

    def log_embedding(
        self,
        tag: str,
        vectors: Any,
        metadata: Sequence[Sequence[Any]] | None = None,
        header: Sequence[str] | None = None,
        step: int = 0,
    ) -> None:
        """Write vectors [N, D] for the embedding projector, with N rows of metadata under `header`.

        Raises ValueError when the numbers of rows or of columns differ.
        """
        rows, names = _projector_table(len(vectors), metadata, header)
        with self._telling():
            self.writer.add_embedding(vectors, rows, None, step, tag, names)

    def update(self, **fields: Any) -> None:
        """Set further fields of `run.json`, such as the data's fingerprint; metrics so far go along."""
        self._flushed = time.monotonic()
        self._save(record.update, record.changed, **self._summary.snapshot(), **fields)

    def finish(self, status: Status = "finished", reason: str | None = None) -> None:
        """Write the end of the run; a second call, or one from a forked child, does nothing.

        Raises UserError when the disk refuses; the run is marked failed where that can still be written.
        """
        if self._ended or os.getpid() != self._process:
            return
        try:
            self._close_writer(status)
        except UserError as error:
            with suppress(UserError):
                self._end("failed", interruption.describe(error.__cause__ or error))
            raise
        else:
            self._end(status, reason)
        finally:
            self._ended = True
            self._lock.release()

    def _end(self, status: Status, reason: str | None) -> None:
        """Write the last fields; the headless runner alone says that all went well, after the last cell."""
        metrics = self._summary.snapshot()
        if self._adopted and status == "finished":
            self._save(record.update, record.changed, **metrics)
        else:
            self._save(record.end, record.ended, status=status, reason=reason, **metrics)

    def _save(
        self, in_file: Callable[..., record.Record], in_memory: Callable[..., record.Record], **fields: Any
    ) -> None:
        """Change `run.json`; one that somebody has broken or removed meanwhile is written anew."""
        with self._telling():
            try:
                self._record = in_file(self.folder, **fields)
            except record.RecordError:
                self._record = record.write(self.folder, in_memory(self._record, **fields))

    def _close_writer(self, status: Status) -> None:
        if self._writer is None:
            return
        with self._telling():
            if self.config:
                self._writer._get_file_writer().add_summary(hparams.session_end(status))
            self._writer.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn the disk's refusal into a sentence."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The run can't be written to {self.folder}: {error.strerror or error}. "
                "Free some space or mend the folder's owner, then start again: "
                f"df {self.folder}; ls -ld {self.folder}"
            ) from error


def _image_layout(shape: Sequence[int]) -> str:
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return "HWC"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "CHW"
    raise ValueError(
        f"An image of shape {list(shape)}: expected [H, W], [H, W, C] or [C, H, W], C of 1, 3 or 4."
    )


def _projector_table(
    count: int, metadata: Sequence[Sequence[Any]] | None, header: Sequence[str] | None
) -> tuple[list[Any] | None, list[str] | None]:
    """Return metadata rows and header as the projector's TSV needs them: no tabs, no line breaks.

    The projector takes the first line for a header when there are several columns, and only then.
    """
    if metadata is None:
        return None, None
    rows = [[_cell(each) for each in ([row] if isinstance(row, str) else row)] for row in metadata]
    if len(rows) != count:
        raise ValueError(
            f"{count} vectors, but {len(rows)} rows of metadata: expected one row for each vector."
        )
    names = [_cell(each) for each in header or []] or [
        f"column {1 + i}" for i in range(len(rows[0]) if rows else 0)
    ]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"Metadata under {names}: expected {len(names)} columns in each row.")
    return (rows, names) if len(names) > 1 else ([row[0] for row in rows], None)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()) or "-"  # an empty line would vanish, and shift the rows below it
