"""What the log leaves out."""

from __future__ import annotations

import logging


def without_traceback(record: logging.LogRecord) -> bool:
    """A request that was refused is one line: its traceback shows only our own code that refused it."""
    if record.name.startswith("django.security") or (
        record.name == "django.request" and record.levelno < logging.ERROR
    ):
        record.exc_info = None
    return True
