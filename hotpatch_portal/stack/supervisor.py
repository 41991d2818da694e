"""Keeps the portal's processes running: starts them, prefixes their lines, restarts what dies, stops all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hotpatch_portal.stack.embedded import die_with_parent

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
# Who lived this long is healthy again: the next death starts with the first backoff.
HEALTHY_AFTER_SECONDS = 60.0
SILENT_AFTER_SECONDS = 60.0
STOP_SECONDS = 10.0
_COLOURS = (36, 33, 35, 32, 34, 31)


def say(name: str, line: str, *, colour: int = 37) -> None:
    """Print one line under the name of who said it."""
    prefix = f"{name:<9}|"
    if sys.stdout.isatty():
        prefix = f"\033[{colour}m{prefix}\033[0m"
    print(f"{prefix} {line}", flush=True)  # noqa: T201 (the terminal is this program's page)


@dataclass
class Child:
    """One process that is to run. `heartbeat`: a file that a healthy child touches."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    heartbeat: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    backoff: float = FIRST_BACKOFF_SECONDS

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, *, cwd: Path, colour: int) -> None:
        """Start its process, in a group of its own that dies with this one."""
        if self.heartbeat is not None:
            self.heartbeat.touch()
        self.process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=os.environ | dict(self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.started_at = time.monotonic()
        assert self.process.stdout is not None
        threading.Thread(target=_copy_lines, args=(self.name, self.process.stdout, colour), daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, and a SIGKILL to its whole group."""
        if self.process is None or not self.is_running:
            return
        if number is signal.SIGKILL:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
        else:
            self.process.send_signal(number)

    def is_silent(self) -> bool:
        """Whether it has not touched its heartbeat for too long."""
        if self.heartbeat is None or not self.is_running:
            return False
        try:
            age = time.time() - self.heartbeat.stat().st_mtime
        except FileNotFoundError:
            return True
        return age > SILENT_AFTER_SECONDS and time.monotonic() - self.started_at > SILENT_AFTER_SECONDS


def _copy_lines(name: str, stream: IO[bytes], colour: int) -> None:
    with stream:
        for line in stream:
            say(name, line.decode(errors="replace").rstrip(), colour=colour)


class Supervisor:
    """Runs its children until it is told to stop. Use from the main thread: children die with the thread that made them."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        cwd: Path,
        broker_answers: Callable[[], bool],
        servers: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Keep these children running in `cwd`.

        `broker_answers`: whether Redis answers; a silent worker is restarted only then. `servers`: called in every
        round to bring embedded servers back that have died.
        """
        self.children = list(children)
        self.cwd = cwd
        self.is_stopping = False
        self._broker_answers = broker_answers
        self._servers = servers

    def start(self) -> None:
        """Start every child."""
        for number, child in enumerate(self.children):
            child.start(cwd=self.cwd, colour=_COLOURS[number % len(_COLOURS)])

    def check(self) -> None:
        """One round: bring back what died, and end a worker that has gone silent while the broker answers."""
        for revive in self._servers:
            revive()
        now = time.monotonic()
        for number, child in enumerate(self.children):
            if child.is_running:
                if child.is_silent() and self._broker_answers():
                    say("portal", f"{child.name} has been silent for {SILENT_AFTER_SECONDS:.0f} s; restarting it")
                    child.signal(signal.SIGKILL)
                continue
            if not child.restart_at:
                self._plan_restart(child, now)
            elif now >= child.restart_at:
                child.restart_at = 0.0
                child.start(cwd=self.cwd, colour=_COLOURS[number % len(_COLOURS)])

    def _plan_restart(self, child: Child, now: float) -> None:
        if now - child.started_at > HEALTHY_AFTER_SECONDS:
            child.backoff = FIRST_BACKOFF_SECONDS
        code = child.process.returncode if child.process else None
        say("portal", f"{child.name} ended ({_words(code)}); starting it again in {child.backoff:.0f} s")
        # What it leaves behind of its group must not work beside its successor.
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
        child.restart_at = now + child.backoff
        child.backoff = min(child.backoff * 2, LONGEST_BACKOFF_SECONDS)

    def run(self, *, seconds_between_rounds: float = 0.5) -> None:
        """Check again and again until `stop_soon` was called."""
        while not self.is_stopping:
            self.check()
            time.sleep(seconds_between_rounds)

    def stop_soon(self) -> None:
        """Leave `run` after this round. May be called from a signal handler."""
        self.is_stopping = True

    def stop(self) -> None:
        """Stop every child, the last started first; who does not go within 10 seconds is killed."""
        for child in reversed(self.children):
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in reversed(self.children):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.signal(signal.SIGKILL)
                child.process.wait()


def _words(code: int | None) -> str:
    if code is None:
        return "never started"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
