"""The Arrow schema beside a Parquet file's own, which alone says that lists are of fixed size.

Parquet knows lists of any length only. Arrow's convention is a message of its IPC format in the
metadata (key ``ARROW:schema``), by which pyarrow and whatever is built on it give back
``fixed_size_list<float>[D]``. The message is a FlatBuffer (Schema.fbs, Message.fbs of Arrow's
format): tables of fields at offsets, each behind a small table of where its fields are.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

ARROW_SCHEMA = "ARROW:schema"
_V5, _SCHEMA = 4, 1  # MetadataVersion, MessageHeader
_INT, _FLOAT, _BINARY, _UTF8, _FIXED_SIZE_LIST = 2, 3, 4, 5, 16  # Type
_PRECISION = {"float": 1, "double": 2}

# A field of a table: its slot, how it is packed, its value. "table", "text" and "tables" are
# offsets to what follows.
_Field = tuple[int, str, Any]
_SIZES = {"B": 1, "h": 2, "i": 4, "q": 8, "table": 4, "text": 4, "tables": 4}


def arrow_schema(columns: Sequence[tuple[str, str | int]]) -> str:
    """Base64 of the message for columns of these names and types.

    A type is ``text``, ``bytes``, ``int64``, ``double``, or a number D: a list of D float32.
    """
    fields = [_column(name, kind) for name, kind in columns]
    schema = [(1, "tables", fields)]
    message = [(0, "h", _V5), (1, "B", _SCHEMA), (2, "table", schema), (3, "q", 0)]
    buffer = bytearray(4)
    struct.pack_into("<I", buffer, 0, _table(buffer, message))
    buffer += bytes(-len(buffer) % 8)
    framed = struct.pack("<Ii", 0xFFFFFFFF, len(buffer)) + buffer
    return base64.b64encode(framed).decode("ascii")


def _column(name: str, kind: str | int, *, nullable: bool = True) -> list[_Field]:
    number, content, children = _type(kind)
    return [
        (0, "text", name),
        (1, "B", int(nullable)),
        (2, "B", number),
        (3, "table", content),
        (5, "tables", children),
    ]


def _type(kind: str | int) -> tuple[int, list[_Field], list[list[_Field]]]:
    if isinstance(kind, int):
        return _FIXED_SIZE_LIST, [(0, "i", kind)], [_column("element", "float")]
    if kind in _PRECISION:
        return _FLOAT, [(0, "h", _PRECISION[kind])], []
    if kind == "int64":
        return _INT, [(0, "i", 64), (1, "B", 1)], []
    return (_UTF8 if kind == "text" else _BINARY), [], []


def _table(buffer: bytearray, fields: list[_Field]) -> int:
    """Append a table and what it refers to; where it begins."""
    ordered = sorted(fields, key=lambda field: -_SIZES[field[1]])  # so that all are aligned
    slots = max((slot for slot, _, _ in fields), default=-1) + 1
    places: dict[int, int] = {}
    end = 4
    for slot, kind, _ in ordered:
        end += -end % _SIZES[kind]
        places[slot] = end
        end += _SIZES[kind]
    offsets = [places.get(slot, 0) for slot in range(slots)]
    _align(buffer, 2)
    description = len(buffer)
    buffer += struct.pack(f"<{2 + slots}H", 4 + 2 * slots, end, *offsets)
    _align(buffer, 8)
    start = len(buffer)
    buffer += bytes(end)
    struct.pack_into("<i", buffer, start, start - description)
    for slot, kind, value in ordered:
        place = start + places[slot]
        if kind in {"table", "text", "tables"}:
            target = _append(buffer, kind, value)
            struct.pack_into("<I", buffer, place, target - place)
        else:
            struct.pack_into(f"<{kind}", buffer, place, value)
    return start


def _append(buffer: bytearray, kind: str, value: Any) -> int:
    if kind == "table":
        return _table(buffer, value)
    _align(buffer, 4)
    start = len(buffer)
    if kind == "text":
        text = value.encode()
        buffer += struct.pack("<I", len(text)) + text + b"\0"
        return start
    buffer += struct.pack("<I", len(value)) + bytes(4 * len(value))
    for number, fields in enumerate(value):
        place = start + 4 + 4 * number
        target = _table(buffer, fields)
        struct.pack_into("<I", buffer, place, target - place)
    return start


def _align(buffer: bytearray, size: int) -> None:
    buffer += bytes(-len(buffer) % size)
