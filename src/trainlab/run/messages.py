"""The messages of event files, as TensorFlow has them: those that numbers, texts, settings and
pictures need.

What else a message holds, a histogram say, is kept where it is parsed and written again. TensorBoard has the
same messages and needs much beside them; the import of tensorboardX brings torch where that is installed,
which takes a second.

Sources: event.proto, summary.proto, tensor.proto and tensor_shape.proto of TensorFlow; plugin_data.proto and
api.proto of TensorBoard's hparams plugin, whose map `hparams` is a list of `Setting` in bytes.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

_PACKAGE = "trainlab.events"
_FIELDS = {
    "Event": "double wall_time=1, int64 step=2, string file_version=3, Summary summary=5, "
    "SessionLog session_log=7",
    "SessionLog": "int32 status=1",
    "Summary": "repeated Value value=1",
    "Value": "string tag=1, Metadata metadata=9, oneof float simple_value=2, oneof Image image=4, "
    "oneof Tensor tensor=8",
    "Image": "int32 height=1, int32 width=2, int32 colorspace=3, bytes encoded_image_string=4",
    "Metadata": "PluginData plugin_data=1, string display_name=2, string summary_description=3",
    "PluginData": "string plugin_name=1, bytes content=2",
    "Tensor": "int32 dtype=1, Shape tensor_shape=2, bytes tensor_content=4, repeated float float_val=5, "
    "repeated double double_val=6, repeated int32 int_val=7, repeated bytes string_val=8, "
    "repeated int64 int64_val=10, repeated bool bool_val=11, repeated int32 half_val=13",
    "Shape": "repeated Dimension dim=2",
    "Dimension": "int64 size=1",
    "HParams": "int32 version=1, SessionStart session_start_info=3, SessionEnd session_end_info=4",
    "SessionStart": "repeated Setting hparams=1, double start_time_secs=5",
    "Setting": "string key=1, google.protobuf.Value value=2",
    "SessionEnd": "int32 status=1, double end_time_secs=2",
}
FLOAT, STRING = 1, 7  # Tensor.dtype
START = 1  # SessionLog.status
SUCCESS, FAILURE = 1, 2  # SessionEnd.status


def _descriptor() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="trainlab/events.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[struct_pb2.DESCRIPTOR.name],
    )
    known = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for each in fields.split(", "):
            *rule, kind, place = each.split()
            field = message.field.add(name=place.partition("=")[0], number=int(place.partition("=")[2]))
            field.label = known.LABEL_REPEATED if rule == ["repeated"] else known.LABEL_OPTIONAL
            if rule == ["oneof"]:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                field.oneof_index = 0
            if kind in _FIELDS or "." in kind:
                field.type, field.type_name = (
                    known.TYPE_MESSAGE,
                    f".{kind}" if "." in kind else f".{_PACKAGE}.{kind}",
                )
            else:
                field.type = known.Type.Value(f"TYPE_{kind.upper()}")
    return file


descriptor_pool.Default().AddSerializedFile(_descriptor().SerializeToString())


def _of(name: str) -> Any:
    return message_factory.GetMessageClass(
        descriptor_pool.Default().FindMessageTypeByName(f"{_PACKAGE}.{name}")
    )


Event, SessionLog, Summary, Value = _of("Event"), _of("SessionLog"), _of("Summary"), _of("Value")
Metadata, PluginData, Tensor, Shape = _of("Metadata"), _of("PluginData"), _of("Tensor"), _of("Shape")
HParams, SessionStart, SessionEnd, Setting = (
    _of("HParams"),
    _of("SessionStart"),
    _of("SessionEnd"),
    _of("Setting"),
)
