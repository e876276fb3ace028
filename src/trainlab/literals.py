"""Values as Python writes them: what a parameter is on the command line, and in the notebook's cell.

JSON and papermill know fewer kinds of value than Python: a tuple would reach the notebook as text.
"""

from __future__ import annotations

import ast
import math
from typing import Any

KINDS = "text, bytes, a number, True, False, None, or a list, tuple, set or dict of these"


def read(text: str) -> Any:
    """Return the value that a text writes as Python does; the text itself where it writes none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # `{[]}`, ten thousand brackets
        return text


def of_node(node: ast.expr | None) -> Any:
    """Return the value of a piece of code that is a literal, and `...` for any other."""
    try:
        return ast.literal_eval(node) if node is not None else ...
    except (ValueError, TypeError, RecursionError):
        return ...


def written(value: Any) -> str:
    """Return the expression that has this very value: same type, same numbers, inside and out.

    Raises ValueError for a value of another kind, and for a whole number of more digits than Python prints.
    """
    kind = type(value)
    if value is ...:
        return "..."
    if value is None or kind in (bool, int, str, bytes):
        return repr(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if kind is complex:  # `-0j` would be another number than complex(0.0, -0.0)
        return f"complex({written(value.real)}, {written(value.imag)})"
    if kind is dict:
        return "{" + ", ".join(f"{written(key)}: {written(each)}" for key, each in value.items()) + "}"
    return _written_together(value)


def _written_together(values: Any) -> str:
    kind = type(values)
    if kind is list:
        return f"[{', '.join(map(written, values))}]"
    if kind is tuple:
        return f"({', '.join(map(written, values))}{',' * (len(values) == 1)})"
    if kind in (set, frozenset):
        inside = f"{{{', '.join(sorted(map(written, values)))}}}" if values else ""
        return inside if kind is set and values else f"{kind.__name__}({inside})"
    raise ValueError(f"a {kind.__name__} can't be written as Python: expected {KINDS}")
