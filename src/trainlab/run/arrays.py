"""States without torch in one file that holds no code: a zip of `state.json` and of NumPy's arrays.

Lists, numbers, texts and None stand in the JSON as they are; {"dict": [[key, value], ...]}, {"tuple": [...]}
and {"array": number} stand for the rest. Nothing is packed, so a file is as large as what it unfolds to.

NumPy is imported where there is an array: that takes a third of the time in which a run without any begins.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from typing import IO, Any

STATE = "state.json"
MOST = 1 << 20  # values beside the arrays: lists that hold each other unfold to any number


def packed(state: Any) -> tuple[bytes, list[Any]]:
    """Return a state as JSON, and the arrays in it; raise TypeError, with its type, for anything else."""
    found: list[Any] = []
    count = itertools.count(1)

    def plain(value: Any) -> Any:
        if next(count) > MOST:
            raise TypeError(f"more than {MOST:,} values beside its arrays")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, dict):
            return {"dict": [[plain(key), plain(each)] for key, each in value.items()]}
        if isinstance(value, list):
            return [plain(each) for each in value]
        if type(value) is tuple:
            return {"tuple": [plain(each) for each in value]}
        if hasattr(value, "__array__") and not type(value).__module__.startswith("torch"):
            import numpy as np

            found.append(np.asarray(value))
            if found[-1].dtype.kind in "biufcSU":  # not objects, nor bfloat16, which NumPy's files don't know
                return {"array": len(found) - 1}
        raise TypeError(f"a value of type {type(value).__module__}.{type(value).__name__}")

    return json.dumps(plain(state)).encode(), found


def write(content: tuple[bytes, list[Any]], file: Any) -> None:
    """Write what `packed` returned to a file, which need not be one that can seek."""
    text, found = content
    if found:
        import numpy as np
    with zipfile.ZipFile(file, "w") as target:
        target.writestr(STATE, text)
        for number, array in enumerate(found):
            with target.open(f"{number}.npy", "w", force_zip64=True) as place:
                np.lib.format.write_array(place, array, allow_pickle=False)


def is_one(file: IO[bytes]) -> bool:
    """Tell whether a zip file holds such a state."""
    with zipfile.ZipFile(file) as source:
        return STATE in source.namelist()


def read(file: IO[bytes]) -> Any:
    """Return the state in a file; raise ValueError, KeyError or BadZipFile for a damaged one."""
    with zipfile.ZipFile(file) as source:

        def value(given: Any) -> Any:
            if isinstance(given, list):
                return [value(each) for each in given]
            if not isinstance(given, dict):
                return given
            ((kind, content),) = given.items()
            if kind == "array":
                import numpy as np

                with source.open(f"{int(content)}.npy") as place:
                    return np.lib.format.read_array(place, allow_pickle=False)
            if kind == "tuple":
                return tuple(value(each) for each in content)
            return {value(key): value(each) for key, each in content}

        return value(json.loads(source.read(STATE)))
