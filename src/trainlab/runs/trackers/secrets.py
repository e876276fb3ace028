"""What must never be printed or recorded: keys of trackers, in the messages of their errors too."""

from __future__ import annotations

import os
import re

_NAMES = re.compile(r"(?i)(key|token|secret|password|passwd)$")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")  # user:password of an address
_SHORTEST = 4  # characters; to hide shorter values would tear ordinary words apart
HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Return text without the values of environment variables named like secrets, and without passwords."""
    values = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    passwords = {part for value in os.environ.values() for part in _passwords(value)}
    for value in sorted(values | passwords, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _USER_INFO.sub(HIDDEN, text)


def _passwords(value: str) -> list[str]:
    """Return the passwords in an address: libraries may print them apart from it."""
    found = (part.partition(":")[2] for part in _USER_INFO.findall(value))
    return [password for password in found if len(password) >= _SHORTEST]
