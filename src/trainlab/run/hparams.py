"""Summaries for TensorBoard's hparams tab, written into the run's own event file.

TensorBoard finds a run's metrics by itself, unless some run declares an 'experiment': then the first such
declaration hides the columns of all others. So none is written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainlab.run.record import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensorboard.compat.proto.summary_pb2 import Summary

    from trainlab.config import Config


def aside(config: Config) -> frozenset[str]:
    """Return the settings that TensorBoard gets no columns for: it shows five, and sorts them by name.

    They are those that change nothing in what is learned, such as `accelerator`, and are as ever.
    """
    free: frozenset[str] = getattr(config, "MAY_CHANGE", frozenset())
    return free - {"epochs"} - config.changes().keys()


def session_start(config: Mapping[str, Any]) -> Summary:
    """Return the summary that says that a session with these settings has started; None is left out."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    session = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for key, value in plain(config).items():
        if value is None:
            continue
        if isinstance(value, bool):
            session.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            session.hparams[key].number_value = value
        else:
            session.hparams[key].string_value = str(value)
    data = plugin_data_pb2.HParamsPluginData(session_start_info=session)
    return _summary(metadata.SESSION_START_INFO_TAG, data)


def session_end(status: str) -> Summary:
    """Return the summary that says that the session has ended as 'finished', or as anything else."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    code = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
    session = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=session)
    return _summary(metadata.SESSION_END_INFO_TAG, data)


def _summary(tag: str, data: Any) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    description = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=description, tensor=metadata.NULL_TENSOR)])
