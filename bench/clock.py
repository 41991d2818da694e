"""A wall clock that steps: processes of a fault campaign believe the time that a file tells them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import time_machine


def follow(path: Path) -> None:
    """From now on this process's wall clock is off by as many seconds as the file says; its monotonic clock is not."""
    clock = time_machine.travel(time.time(), tick=True).start()
    offset = 0.0

    def run() -> None:
        nonlocal offset
        while True:
            with suppress(OSError, ValueError):
                wanted = float(path.read_text())
                if wanted != offset:
                    clock.shift(wanted - offset)
                    offset = wanted
            time.sleep(0.5)

    def start() -> None:
        threading.Thread(target=run, name="stepping-clock", daemon=True).start()

    start()
    os.register_at_fork(after_in_child=start)
