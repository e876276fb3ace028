"""What a run records while it trains: numbers, texts, pictures, vectors, and the states of a plain loop."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainlab import errors, extras, secrets
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.metrics import Summary
from trainlab.trackers.queue import TrackerGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trainlab.run.writing import EventFile


# Pictures and histograms: after train/, val/ and val_tfidf/ in the alphabet, as `VITALS` is, which see
VIEWS = "views/"


class Recorder:
    """Writes into the event files of one folder, and keeps the last and the best of each number."""

    folder: Path
    checkpoint: Path | None  # where a resumed run starts from
    step: int  # behind the last one that something was logged at
    _ended = False

    def __init__(self) -> None:
        self._summary = Summary()
        self._event_file: EventFile | None = None
        self._writer: Any = None
        self._trackers = TrackerGroup()

    @property
    def _events(self) -> EventFile:
        """The event file, made when first used; raises UserError once the run has ended."""
        if self._ended:
            raise UserError(
                f"The run {self.folder.name} has ended: nothing can be logged to it any more. "
                "Start a new Run, or go on with this one: resume=RUN."
            )
        if self._event_file is None:
            from trainlab.run.writing import EventFile

            self._event_file = EventFile(self.folder)
        return self._event_file

    @property
    def writer(self) -> Any:
        """tensorboardX's SummaryWriter on the run's event file; raises UserError once the run has ended."""
        file = self._events
        if self._writer is None:
            from trainlab.run.writing import summary_writer

            self._writer = summary_writer(file)
        return self._writer

    def _record_scalars(self, metrics: Mapping[str, float], step: int) -> None:
        for tag, value in metrics.items():
            number = float(value)
            with self._disk_errors():
                self._events.add_scalar(tag, number, step)
            self._summary.add(tag, number, step)
        self._trackers.log(metrics, step)

    def has(self, tag: str, step: int) -> bool:
        """Tell whether a number of this tag stands at this step or a later one."""
        last = self._summary.last.get(tag)
        return last is not None and last["step"] >= step

    def log_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, which TensorBoard shows as Markdown."""
        with self._disk_errors():
            self._events.add_text(tag, text, step)

    def log_figure(self, tag: str, figure: Any, step: int) -> None:
        """Write a Matplotlib figure as a picture, and close it."""
        from tensorboardX import summary, utils

        with self._disk_errors():
            self._events.add_drawn(tag, summary.image(tag, utils.figure_to_image(figure)), step)

    def log_image(self, tag: str, array: Any, step: int) -> None:
        """Write a picture: [H, W], [H, W, C] or [C, H, W] with C of 1, 3 or 4; floats in 0..1, or bytes."""
        shape = tuple(array.shape)
        layouts = {"HW": len(shape) == 2}
        if len(shape) == 3:
            layouts |= {"HWC": shape[2] in (1, 3, 4), "CHW": shape[0] in (1, 3, 4)}
        layout = next((name for name, fits in layouts.items() if fits), None)
        if layout is None:
            raise ValueError(
                f"An image of shape {list(shape)}: expected [H, W], [H, W, C] or [C, H, W], C of 1, 3 or 4."
            )
        import numpy as np
        from tensorboardX import summary, x2num

        extras.need("PIL", "Run.log_image")
        picture = x2num.make_np(_known_to_numpy(array))
        if picture.dtype != np.uint8:
            picture = (np.clip(picture.astype(float), 0, 1) * 255).astype(np.uint8)
        with self._disk_errors():
            self._events.add_drawn(tag, summary.image(tag, picture, dataformats=layout), step)

    def log_histogram(self, tag: str, values: Any, step: int) -> None:
        """Write the distribution of an array of numbers of any shape."""
        from tensorboardX import summary

        drawn = summary.histogram(tag, _known_to_numpy(values), self.writer.default_bins)
        with self._disk_errors():
            self._events.add_drawn(tag, drawn, step)

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
        listed = self.folder / "projector_config.pbtxt"
        with self._disk_errors():
            # a resumed run writes it again: tensorboardX would wonder at the folder, and list it twice
            written = self.folder / f"{step:05d}" / self.writer._encode(tag)
            shutil.rmtree(written, ignore_errors=True)
            before = listed.read_text() if listed.exists() else ""
            self.writer.add_embedding(_known_to_numpy(vectors), rows, None, step, tag, names)
            if listed.read_text()[len(before) :] in before:
                listed.write_text(before)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints, which may not be there yet."""
        return self.folder / checkpoint.FOLDER

    def save(self, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint that `load` returns in a resumed run: whole, with a SHA-256, or not at all.

        The one before is kept, for the case that this one gets damaged.

        Args:
            state: Numbers, texts, NumPy or JAX arrays, torch tensors, and dicts and lists of them, such as
                {"model": model.state_dict(), "optimizer": optimizer.state_dict()}.

        Raises:
            CheckpointError: The disk refuses, or the state holds something else.
        """
        before = checkpoint.full_states(self.folder)
        path = self.checkpoints / f"{checkpoint.STEP}{self.step:08d}.ckpt"
        checkpoint.save({"state": dict(state), "step": self.step}, path)
        checkpoint.alias(path, checkpoint.LAST)
        for old in [each for each in before if each != path and each.name != checkpoint.LAST][1:]:
            checkpoint.remove(old)
        self.update()
        return path

    def load(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the state that a resumed run goes on from, None where there is none.

        `step` and the curves go on from there, too. JAX arrays come back as NumPy's.

        Args:
            map_location: Where torch's tensors go to.

        Raises:
            CheckpointError: The file is damaged, or was not written by `save`.
        """
        if self.checkpoint is None:
            return None
        saved = checkpoint.load(self.checkpoint, map_location)
        if saved.keys() != {"state", "step"}:
            raise checkpoint.CheckpointError(
                f"{self.checkpoint} was not written by run.save: read it with what wrote it."
            )
        self.rewind(saved["step"], self.checkpoint)
        return saved["state"]

    def rewind(self, step: int, checkpoint: Path | None = None) -> None:
        """Take back what was logged at `step` and later."""
        raise NotImplementedError

    def update(self, **fields: Any) -> None:
        """Set further fields of `run.json`."""
        raise NotImplementedError

    @contextmanager
    def _disk_errors(self, folder: Path | None = None) -> Iterator[None]:
        """Turn the disk's refusal into a sentence."""
        folder = folder or self.folder
        try:
            yield
        except OSError as error:
            raise UserError(unwritable(folder, error)) from None


def unwritable(folder: Path, error: OSError | UserError) -> str:
    """Return what to say where nothing can be written into a run's folder any more."""
    if not folder.is_dir():
        return gone(folder)
    return str(error) if isinstance(error, UserError) else errors.unwritable(folder, error)


def gone(folder: Path) -> str:
    """Return what to say of a run whose folder was there a moment ago."""
    return (
        f"The run's folder {folder} is no longer there: it was moved, deleted or replaced while the run was "
        "running. Put it back, then resume the run."
    )


def _known_to_numpy(values: Any) -> Any:
    """Return torch's bfloat16, which NumPy lacks, as float32, and all else as it is."""
    return values.float() if str(getattr(values, "dtype", "")) == "torch.bfloat16" else values


def _projector_table(
    count: int, metadata: Sequence[Sequence[Any]] | None, header: Sequence[str] | None
) -> tuple[list[Any] | None, list[str] | None]:
    """Return metadata rows and header as the projector's TSV needs them: no tabs, no line breaks.

    The projector takes the first line for a header when there are several columns, and only then.
    """
    if metadata is None:
        return None, None

    def cells(row: Any) -> list[str]:  # an empty line would vanish, and shift the rows below it
        return [" ".join(str(each).split()) or "-" for each in ([row] if isinstance(row, str) else row)]

    rows = secrets.hidden([cells(row) for row in metadata], by_name=False)
    if len(rows) != count:
        raise ValueError(
            f"{count} vectors, but {len(rows)} rows of metadata: expected one row for each vector."
        )
    columns = len(rows[0]) if rows else 0
    names = cells(list(header or [])) or [f"column {1 + number}" for number in range(columns)]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"Metadata under {names}: expected {len(names)} columns in each row.")
    return (rows, names) if len(names) > 1 else ([row[0] for row in rows], None)
