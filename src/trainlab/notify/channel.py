"""Sends one message to one Apprise address, both read from standard input, and ends.

A process of its own: a server that hangs, or a library that breaks, stops nobody else, and what it takes of
memory is given back. Nothing of the address is printed: what went wrong is told by the exit code alone.
"""

from __future__ import annotations

import json
import logging
import re
import sys

SENT, FAILED, NOT_UNDERSTOOD, MISSING, REFUSED = 0, 1, 3, 4, 10  # REFUSED + n: the server answered n00
_ANSWER = re.compile(r"error=(\d)\d\d\b")  # as Apprise's plugins log what a server has answered


class _Answers(logging.Handler):
    """Keeps of what Apprise logs the first digit of a server's answer, and nothing else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.digit = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one message, which may hold the address."""
        if found := _ANSWER.search(record.getMessage()):
            self.digit = int(found[1])


def send(address: str, title: str, body: str) -> int:
    """Send a message and return how that went, as one of the codes above."""
    try:
        import apprise
    except ModuleNotFoundError:
        return MISSING
    answers = _Answers()
    log = logging.getLogger("apprise")
    log.handlers, log.propagate = [answers], False
    log.setLevel(logging.WARNING)
    asset = apprise.AppriseAsset(
        app_id="trainlab",
        app_desc="trainlab",
        app_url="",
        async_mode=False,
        plugin_paths=[],
        storage_mode="memory",
    )
    channel = apprise.Apprise(asset=asset)
    if not channel.add(address):
        return NOT_UNDERSTOOD
    if channel.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
        return SENT
    return REFUSED + answers.digit if answers.digit else FAILED


def main() -> int:
    """Do what standard input says; an error is a code, for a traceback would show the address."""
    try:
        known = json.loads(sys.stdin.buffer.read())
        return send(known["address"], known["title"], known["body"])
    except Exception:
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
