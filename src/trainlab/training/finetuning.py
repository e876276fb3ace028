"""`FineTuner`: the Transformers Trainer with this project's defaults, recorded in a run."""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch.utils.data import DataLoader, Dataset, Subset
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import find_batch_size

from trainlab.run import signals
from trainlab.training.batches import OrderedLoader, ordered
from trainlab.training.finetuning_callbacks import Bars, Recording, tagged
from trainlab.training.finetuning_states import FineTuneStates
from trainlab.training.keeping import check_plain
from trainlab.training.precision import precision_of
from trainlab.training.randomness import random_state, set_random_state
from trainlab.training.workers import choose_workers, set_threads, threads_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers.trainer_utils import TrainOutput

    from trainlab.run.run import Run
    from trainlab.training.finetuning_config import FineTuneConfig


class FineTuner(transformers.Trainer):
    """The Transformers Trainer, recorded in a run.

    with trainlab.Run("mine", config) as run:
        FineTuner(run, config, model=model, train_dataset=train, eval_dataset=validation).train()

    Logs and checkpoints lie in the run's folder as Lightning's do (see `FineTuneStates`); Transformers itself
    writes nothing. In a resumed run `train` goes on from the newest undamaged checkpoint: on the CPU with the
    weights and losses that it would have had without the stop. It uses one GPU.

    Each checkpoint holds `hyper_parameters`, what the model can be built from again: its own configuration,
    as `config`, and what is given here. `options` are the Trainer's own.

    Raises UserError for hyperparameters that no checkpoint can hold.
    """

    model: Any  # these are set by Transformers
    optimizer: Any
    lr_scheduler: Any

    def __init__(  # noqa: PLR0913
        self,
        run: Run,
        config: FineTuneConfig,
        *,
        model: transformers.PreTrainedModel,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        hyper_parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        set_threads()
        self.run, self.config = run, config
        self.hyper_parameters = {"config": _configuration(model), **(hyper_parameters or {})}
        check_plain(self.hyper_parameters, "FineTuner", "leave {name} out of hyper_parameters")
        self.resumed_from = run.checkpoint
        self.order: OrderedLoader  # of the training data, once it trains
        self.states = FineTuneStates(run, config, self)
        self._recording, self._bars = Recording(run), Bars()
        ours = [self._bars, self.states, *([] if config.fast_dev_run else [self._recording])]
        super().__init__(
            model=model,
            args=_arguments(run, config, evaluate=eval_dataset is not None),
            train_dataset=_limited(train_dataset, config, config.limit_train_batches, config.batch_size),
            eval_dataset=_limited(eval_dataset, config, config.limit_val_batches, config.eval_batch_size),
            callbacks=[*callbacks, *ours],
            **options,
        )
        self.remove_callback(PrinterCallback)

    @property
    def best_checkpoint(self) -> Path | None:
        """`checkpoints/best.ckpt`, the weights with the best `config.metric_for_best`, if there is one."""
        return None if self.config.fast_dev_run else self.states.ranking.best

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train the model; see Transformers. SIGTERM and Ctrl-C save a checkpoint after the step at work.

        Raises KeyboardInterrupt or `Terminated` then, and UserError for a checkpoint that can't be written,
        or can't be gone on from.
        """
        transformers.set_seed(self.config.seed)
        with signals.deferred() as deferral, tempfile.TemporaryDirectory() as folder:
            self.states.deferral = deferral
            deferral.at_once = True  # until the first step
            if self.resumed_from is not None:
                self.states.load(self.resumed_from, Path(folder))
                kwargs = {"resume_from_checkpoint": folder} | kwargs
            try:
                done = super().train(*args, **kwargs)
            except (KeyboardInterrupt, signals.Terminated):
                self.states.interrupted()
                raise
            finally:
                self._bars.close()
        self.run.checkpoint = self.resumed_from = None  # a second training is another one
        return done

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader with an order of our own (see `batches.ordered`), and with workers."""
        assert self.train_dataset is not None, "nothing to train on: FineTuner(..., train_dataset=...)"
        collate = self._get_collator_with_removed_columns(self.data_collator)
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.config.batch_size,
            shuffle=True,
            collate_fn=collate,
            pin_memory=self.args.device.type == "cuda",
        )
        self.order = ordered(loader, seed=self.config.seed)
        self.order.use_workers(self._workers())
        return self.order.loader

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return a loader of what `limit_test_batches` leaves."""
        limit, size = self.config.limit_test_batches, self.config.eval_batch_size
        return super().get_test_dataloader(_limited(test_dataset, self.config, limit, size))

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Any]:
        """Get a step's batches, and take down what that took."""
        since = time.perf_counter()
        batches, items = super().get_batch_samples(*args)
        self._recording.fetched(sum(map(find_batch_size, batches)), time.perf_counter() - since)
        return batches, items

    def _workers(self) -> int:
        asked = self.config.num_workers
        if asked != "auto":
            torch.set_num_threads(threads_for(1, asked))
            return asked
        choice = choose_workers(self.order, spare=int(self.args.device.type == "cpu"))
        print(choice, flush=True)
        return choice.workers

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.states.before_evaluation()
        before = random_state()
        metrics = super()._evaluate(*args, **kwargs)
        set_random_state(before)  # how often one looks changes nothing in what is learned
        self.states.judge(tagged(metrics))
        return metrics

    def _save_checkpoint(self, *_: Any) -> None:
        self.states.save()

    def _load_from_checkpoint(self, *_: Any) -> None:
        self.states.restore_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.states.restore_optimizer()

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Do nothing: it came with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.states.restore_random()


def _arguments(run: Run, config: FineTuneConfig, *, evaluate: bool) -> transformers.TrainingArguments:
    """Return what the Trainer is told; saving is ours, and nothing is reported to anybody but the run."""
    on_cpu, precision = config.on_cpu(), precision_of(run, config)
    arguments = transformers.TrainingArguments(
        output_dir=str(run.folder),
        num_train_epochs=1 if config.fast_dev_run else config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        logging_steps=config.logging_steps,
        eval_steps=config.logging_steps,
        eval_strategy="steps" if evaluate else "no",
        save_strategy="no",
        logging_nan_inf_filter=False,  # a loss that is no number is to be seen
        bf16=precision == "bf16-mixed",
        fp16=precision == "16-mixed",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=config.seed,
        full_determinism=config.deterministic,
        report_to="none",
        disable_tqdm=True,  # Bars is ours
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # else the batch would be shared out among all GPUs
    return arguments


def _limited(dataset: Any, config: FineTuneConfig, limit: float, batch_size: int) -> Any:
    """Return the first rows of a data set, as many as the share or the number of batches `limit` holds."""
    if dataset is None:
        return None
    batches = math.ceil(len(dataset) / batch_size)
    limit = config.fast_dev_run or limit
    kept = limit if isinstance(limit, int) else int(batches * limit)
    return dataset if kept >= batches else Subset(dataset, range(kept * batch_size))


def _configuration(model: transformers.PreTrainedModel) -> dict[str, Any]:
    """Return a model's configuration as numbers, texts, lists and dicts."""
    return json.loads(model.config.to_json_string(use_diff=False))
