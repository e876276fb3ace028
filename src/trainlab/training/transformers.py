"""`RunCallback`: what a Transformers Trainer, or any subclass of it, trains is recorded in a run."""
# ruff: noqa: ARG002 - a callback's methods are given more than each needs

from __future__ import annotations

import dataclasses
import math
import os
import time
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch.utils.data import Subset
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from trainlab.errors import UserError
from trainlab.run import checkpoint, signals
from trainlab.run.metrics import AUTO
from trainlab.training.config import LAST, as_tag
from trainlab.training.seed import precision_of, random_state, set_random_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.run.run import Run
    from trainlab.training.config import CommonConfig, FineTuneConfig

TRAIN = {"loss": "train/loss", "learning_rate": "train/lr", "grad_norm": "train/grad_norm"}
SPLITS = {"eval": "val", "test": "test"}
COSTS = ("runtime", "samples_per_second", "steps_per_second", "tokens_per_second", "model_preparation_time")
SUMMARY = ("epoch", "total_flos", "train_loss")  # no curves: the count of epochs, and what ends a training


class RunCallback(transformers.TrainerCallback):
    """Records a `transformers.Trainer`, or a subclass of it, in a run.

    with trainlab.Run("mine", settings, resume=resume) as run:
        arguments = transformers.TrainingArguments(output_dir=run.checkpoints, ...)
        trainer = transformers.Trainer(..., args=arguments, callbacks=[trainlab.RunCallback(run)])
        trainer.train(resume_from_checkpoint=run.checkpoint)

    Whatever the Trainer logs becomes a curve, with the speed beside it; no `report_to` is needed. A point
    stands at the step that it was made in, counted from 0. train/loss is logged with each checkpoint, too, so
    that none of it is lost when a training goes on there; and evaluating, however often, changes nothing in
    what is learned. On the CPU a training that goes on has the weights and curves that it would have had, but
    for data that are drawn at random item by item: two batches are drawn anew.

    Each checkpoint gets its SHA-256 once it is whole; `run.checkpoint`, or `newest` for an `output_dir`
    elsewhere, passes by those that are not. SIGTERM and Ctrl-C save after the current step, and after the
    evaluation that is due then, and raise `Terminated` or KeyboardInterrupt out of `train`; where several
    processes train together they are left to the launcher.

    Args:
        run: The run, inside its `with` block.
        config: Asks for checkpoints besides those of the TrainingArguments: `checkpoint_every`,
            `every_n_epochs`, and one at the end. With `save_strategy="best"` one that falls on an evaluation
            that is not the best is written a step later.

    Raises:
        UserError: When a training begins whose best weights would be chosen by a guess, that has done more
            steps than are wanted, or that starts anew although its run goes on.
    """

    def __init__(self, run: Run, config: CommonConfig | None = None) -> None:
        self._run, self._config = run, config
        self._deferral = signals.Deferral(signals.PATIENCE)
        self._signals = ExitStack()  # closed, it leaves signals to others and raises what one stands for
        self._begun = False
        self._saved = 0  # the step of the newest checkpoint
        self._saved_at = self._since = time.monotonic()
        self._waited = self._worked = 0.0  # seconds, of so many steps, since they were logged
        self._steps = 0
        self._in_step = False
        self._random: dict[str, Any] | None = None  # before the evaluation that is running, or due

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check what is wanted, write the arguments, and take the curves back to where it goes on."""
        run, first = self._run, not self._begun
        _check_best(run, args)
        if state.global_step > state.max_steps:
            raise UserError(
                f"This run has done {state.global_step} steps already, and {state.max_steps} are wanted. "
                "Ask for more epochs or steps, or start a new run."
            )
        if first and run.checkpoint is not None and state.global_step == 0:
            raise UserError(
                f"The run is resumed from {run.checkpoint}, and the training starts at step 0. Write "
                "trainer.train(resume_from_checkpoint=run.checkpoint), or start a new run."
            )
        if "tensorboard" in args.report_to:
            print('warning: the run writes event files already: report_to="none" saves doing so twice.')
        if state.is_world_process_zero:
            if first and run.resumed:
                run.rewind(state.global_step, run.checkpoint)
                where = run.checkpoint or args.output_dir
                print(f"resumed from step {state.global_step}: {where}", flush=True)
            defaults = {field.name: field.default for field in dataclasses.fields(args)}
            given = {name: value for name, value in args.to_dict().items() if value != defaults.get(name)}
            run.plan(state.max_steps, math.ceil(state.num_train_epochs), state.global_step)
            run.update(training_arguments=given)
        if first:
            run.enter(self._signals)
        if args.world_size == 1:
            self._deferral = self._signals.enter_context(signals.deferred())
        self._begun = self._deferral.at_once = True  # at once: until the first step
        self._saved, self._saved_at, self._since = state.global_step, time.monotonic(), time.monotonic()
        self._random = random_state() if args.eval_on_start else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take down how long the step's batches took."""
        self._waited += self._lap()
        self._in_step, self._deferral.at_once = True, False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save where it is time, or somebody wants to stop."""
        self._worked += self._lap()
        self._in_step, self._steps = False, self._steps + 1
        self._decide(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save at the end of an epoch, too."""
        due = self._config is not None and round(state.epoch) % self._config.every_n_epochs == 0
        self._decide(args, state, control, due=due)

    def _decide(self, args: Any, state: Any, control: Any, *, due: bool = False) -> None:
        """Say what the Trainer is to do now, besides what its arguments say."""
        stop, ends = self._deferral.requested is not None, control.should_training_stop
        if self._config is not None:
            seconds = time.monotonic() - self._saved_at
            due = due or ends or self._config.is_due(state.global_step, self._saved, seconds)
        if state.global_step != self._saved:
            control.should_save = bool(control.should_save or due or stop)
        elif stop:
            self._signals.close()
        control.should_training_stop = ends or stop
        best = control.should_evaluate and args.save_strategy == SaveStrategy.BEST  # may be saved
        control.should_log = bool(control.should_log or control.should_save or best or ends)
        self._random = random_state() if control.should_evaluate else None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on as if nothing had been evaluated, or save and stop if somebody wants that by now."""
        if self._random is not None:
            set_random_state(self._random)
        self._random = None
        self._lap()
        if self._deferral.requested is not None:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log to the run, at each step the first point of a tag alone."""
        logs: dict[str, Any] = kwargs["logs"]
        evaluating = self._random is not None and "loss" not in logs
        metrics = tagged(logs, evaluating=evaluating)
        if "train/loss" in metrics and self._steps:
            self._lap()
            samples = self._steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            seconds = self._waited + self._worked
            metrics["vitals/samples_per_second"] = samples / seconds
            metrics["vitals/step_seconds"] = seconds / self._steps
            metrics["vitals/data_wait_share"] = self._waited / seconds
            self._waited, self._worked, self._steps = 0.0, 0.0, 0
        step = state.global_step if self._in_step else max(state.global_step - 1, 0)
        new = {tag: value for tag, value in metrics.items() if not self._run.has(tag, step)}
        if new and state.is_world_process_zero:
            self._run.log(new, step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the SHA-256 of what was saved; stop if somebody wants that."""
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        if args.world_size > 1:  # the others write their random numbers beside what is saved here
            torch.distributed.barrier()
        if state.is_world_process_zero and folder.is_dir():
            checkpoint.seal(folder)
            if best := state.best_model_checkpoint:
                known = {"path": os.path.relpath(best, self._run.folder), "monitor": monitor(args)}
                known |= {"value": state.best_metric, "step": state.best_global_step}
                self._run.update(best_checkpoint=known)
        self._saved, self._saved_at = state.global_step, time.monotonic()
        self._lap()
        if self._deferral.requested is not None:
            self._signals.close()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave signals alone again."""
        self._signals.close()

    def _lap(self) -> float:
        """Return the seconds since the last call; a longest one is written for whoever stops the run."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        self._deferral.took(seconds, self._run.update)
        return seconds


def newest(output_dir: str | Path) -> str | None:
    """Return the newest undamaged checkpoint below a Trainer's `output_dir`, None where there is none.

    It is for `trainer.train(resume_from_checkpoint=...)`. Each one that is damaged, or whose saving was cut
    off, is named in a warning on standard output.
    """
    found = checkpoint.newest(Path(output_dir))
    return None if found is None else str(found)


def tagged(logs: Mapping[str, Any], *, evaluating: bool = False) -> dict[str, float]:
    """Return the numbers that a Trainer logs under our tags: {'eval_loss': 0.5} as {'val/loss': 0.5}.

    Left out are what evaluating and the whole training cost, and parts of the loss that are logged batch by
    batch while the model is evaluated.
    """
    metrics = {}
    for key, value in logs.items():
        split, _, name = key.partition("_")
        if not isinstance(value, Real) or key in SUMMARY or name.endswith(COSTS):
            continue
        if split in SPLITS:
            metrics[f"{SPLITS[split]}/{name}"] = float(value)
        elif key.startswith(("train/", "val/", "test/")):
            metrics[key] = float(value)
        elif not evaluating:
            metrics[TRAIN.get(key, f"train/{key}")] = float(value)
    return metrics


def monitor(args: transformers.TrainingArguments) -> str:
    """Return the tag of the metric that the best weights are chosen by, '' where none are."""
    return as_tag(args.metric_for_best_model or "")


def _check_best(run: Run, args: transformers.TrainingArguments) -> None:
    """Raise UserError where it was Transformers that guessed which way the best metric improves."""
    if not (tag := monitor(args)):
        return
    wanted = "max" if args.greater_is_better else "min"
    guessed = args.greater_is_better != tag.endswith("loss")  # what it takes where nobody says it
    known = run.direction(tag, AUTO if guessed else wanted)
    if known is None:
        raise UserError(
            f"{tag}: the best weights are chosen by it, and it is unknown whether less or more of it is "
            f"better. Write Run(..., metrics={{{tag!r}: 'min'}}), or 'max'; among a FineTuneConfig's "
            "settings mode=min or mode=max."
        )
    if known != wanted:
        raise UserError(
            f"{tag}: the best weights are chosen by it, and greater_is_better={args.greater_is_better}, as "
            f"Transformers takes it where it is not set; of this metric the {known}imum is best. Say "
            f"TrainingArguments(..., greater_is_better={known == 'max'})."
        )


def arguments(run: Run, config: FineTuneConfig) -> transformers.TrainingArguments:
    """Return the arguments of a Trainer that follow from an experiment's settings.

    Its checkpoints lie in the run's folder, the best model's always among them; that is loaded at the end.
    With `metric_for_best=last` there is none, and RunCallback alone says when to save.
    """
    chosen = "" if config.metric_for_best == LAST else config.metric_for_best
    direction = run.direction(chosen, config.mode) if chosen else None
    on_cpu, precision, tried = config.device == "cpu", precision_of(run, config), config.fast_dev_run
    made = transformers.TrainingArguments(
        output_dir=str(run.folder if tried else run.checkpoints),
        num_train_epochs=1 if tried else config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is no number is to be seen
        eval_strategy="steps",
        save_strategy="best" if chosen and not tried else "no",
        save_total_limit=config.keep + bool(chosen),
        load_best_model_at_end=bool(chosen) and not tried,
        metric_for_best_model=chosen.removeprefix("val/") or None,
        greater_is_better=None if direction is None else direction == "max",
        restore_callback_states_from_checkpoint=True,  # of early stopping
        bf16=precision == "bf16-mixed",
        fp16=precision == "16-mixed",
        use_cpu=on_cpu,
        dataloader_num_workers=0 if config.num_workers == "auto" else config.num_workers,
        dataloader_pin_memory=not on_cpu,
        seed=config.seed,
        full_determinism=config.deterministic,
        disable_tqdm=True,
    )
    made._n_gpu = min(made.n_gpu, 1)  # else the batch would be shared out among all GPUs
    return made


def limited(dataset: Any, config: FineTuneConfig, limit: float, batch_size: int) -> Any:
    """Return the first rows of a data set: as many batches as the share or the number `limit` says."""
    batches = math.ceil(len(dataset) / batch_size)
    limit = config.fast_dev_run or limit
    kept = limit if isinstance(limit, int) else int(batches * limit)
    return dataset if kept >= batches else Subset(dataset, range(kept * batch_size))
