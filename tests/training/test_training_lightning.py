"""What Lightning keeps to itself and we need: whoever takes another version of it begins here."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import lightning
import torchmetrics
from lightning.pytorch.strategies import DDPStrategy

import trainlab.training

LOOPS = "lightning.pytorch.loops"
CONNECTORS = "lightning.pytorch.trainer.connectors"
LOGGER = f"{CONNECTORS}.logger_connector.logger_connector"
RESULT = f"{CONNECTORS}.logger_connector.result"
SPAWN = "lightning.pytorch.strategies.launchers.multiprocessing"
PRIVATE = {  # who has it: names, those of an instance behind a dot
    f"{LOOPS}.fit_loop._FitLoop": (
        "_load_combined_loader_states ._restart_stage ._resuming_from_checkpoint ._restarting "
        "._last_train_dl_reload_epoch"
    ),
    f"{LOOPS}.fit_loop.RestartStage": "NONE",
    f"{LOOPS}.training_epoch_loop._TrainingEpochLoop": (
        "_on_before_fetch _on_after_fetch _should_accumulate _num_ready_batches_reached _should_check_val_fx "
        "._results"
    ),
    f"{LOOPS}.fetchers._DataFetcher": "",
    f"{CONNECTORS}.signal_connector._SignalConnector": "register_signal_handlers",
    f"{CONNECTORS}.data_connector._DataConnector": "_prepare_dataloader",
    f"{CONNECTORS}.checkpoint_connector._CheckpointConnector": "resume_start dump_checkpoint",
    f"{LOGGER}._LoggerConnector": "._callback_metrics ._first_loop_iter",
    f"{CONNECTORS}.accelerator_connector._AcceleratorConnector": "is_distributed",
    f"{RESULT}._ResultMetric": "compute",
    f"{RESULT}._Metadata": "sync",
    f"{RESULT}._Sync": "",
    "torchmetrics.MeanMetric": "._update_count ._computed metric_state",
    "lightning.Trainer": (
        "._signal_connector ._data_connector ._checkpoint_connector ._logger_connector "
        "._accelerator_connector"
    ),
    "lightning.pytorch.callbacks.ModelCheckpoint": (
        "_save_topk_checkpoint _save_checkpoint _monitor_candidates _should_save_on_train_epoch_end"
    ),
    "lightning.pytorch.callbacks.EarlyStopping": "_run_early_stopping_check",
    "lightning.pytorch.strategies.DDPStrategy": "_configure_launcher ._launcher",
    f"{SPAWN}._MultiProcessingLauncher": "launch is_interactive_compatible",
    "lightning.pytorch.strategies.launchers.subprocess_script._SubprocessScriptLauncher": "",
    f"{SPAWN}._GlobalStateSnapshot": "capture restore",
    "lightning.pytorch.trainer.call": (
        "_call_callback_hooks _call_callbacks_state_dict _call_callbacks_load_state_dict"
    ),
}
OF_OTHERS = {"_iterator"}  # torch's DataLoader; none of Lightning's


def test_what_we_need_of_lightning_is_there_and_is_all_named_here() -> None:
    trainer = lightning.Trainer(logger=False, accelerator="cpu", barebones=True)
    instances = [trainer, trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer._logger_connector]
    instances += [torchmetrics.MeanMetric(), DDPStrategy()]
    known: set[str] = set()
    for owner, names in PRIVATE.items():
        module, _, name = owner.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except AttributeError:
            found = import_module(owner)
        known |= {name, *names.replace(".", "").split()}
        for each in names.split():
            holder = next(one for one in instances if type(one) is found) if each[0] == "." else found
            assert hasattr(holder, each.lstrip(".")), (owner, each)
    used, ours = set(), set()
    for path in Path(trainlab.training.__file__).parent.glob("*.py"):
        if path.name == "transformers.py":  # needs nothing of Lightning
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
                ours |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
                used |= {each.name for each in node.names}
            elif isinstance(node, ast.FunctionDef):
                ours.add(node.name)
    private = {name for name in used - ours if name.startswith("_") and not name.startswith("__")}
    assert private - OF_OTHERS <= known, private - known
