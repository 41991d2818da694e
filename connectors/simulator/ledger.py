"""What simulated machines went through, written down for whoever judges them: tests, benchmarks, the year simulation."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID

from patching.terms import OperationKind, Patch


@dataclass(frozen=True, slots=True)
class CourseStep:
    """One thing that a machine went through, from when to when. `what`: downloading, installing, rebooting, …"""

    what: str
    begins: datetime
    ends: datetime
    kb_number: str = ""
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """What one run did to one machine, from its first to its last second."""

    request_id: UUID
    vm_id: int
    kind: OperationKind
    steps: tuple[CourseStep, ...]

    @property
    def began_at(self) -> datetime:
        """Its first moment."""
        return self.steps[0].begins

    @property
    def ended_at(self) -> datetime:
        """Its last moment."""
        return self.steps[-1].ends


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine said of itself at one moment: at the end of an assessment, or of a run that ends with one."""

    vm_id: int
    at: datetime
    available: tuple[Patch, ...]
    is_reboot_pending: bool


class Ledger(Protocol):
    """Where a test, a benchmark or a simulation has written down what the machines went through. Append-only."""

    def record(
        self, request_id: UUID, vm_id: int, kind: OperationKind, at: datetime, longest: timedelta | None
    ) -> None:
        """One start arrived at one machine. `longest`: how long it was told to take at most, where it was told."""
        ...

    def went_through(self, course: Course) -> None:
        """What a run that changes a machine did to it; told when it is seen to have ended, and again if that is repeated."""
        ...

    def answered(self, answer: Answer) -> None:
        """What a machine said is available on it; told whenever it is said."""
        ...


class MemoryLedger:
    """A ledger of one process; thread-safe. A course is kept once, however often it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[UUID, int, OperationKind, datetime, timedelta | None]] = []
        self.courses: dict[UUID, Course] = {}
        self.answers: list[Answer] = []
        self._lock = threading.Lock()

    def record(
        self, request_id: UUID, vm_id: int, kind: OperationKind, at: datetime, longest: timedelta | None
    ) -> None:
        """Keep the line."""
        with self._lock:
            self.lines.append((request_id, vm_id, kind, at, longest))

    def went_through(self, course: Course) -> None:
        """Keep the course."""
        with self._lock:
            self.courses[course.request_id] = course

    def answered(self, answer: Answer) -> None:
        """Keep the answer, in the order in which they were given."""
        with self._lock:
            self.answers.append(answer)


class FileLedger:
    """A ledger that many processes append to; a line is written whole. A step's line begins with the word `step`.

    It keeps no answers: who reads it asks what was done, and most of what machines say is the same as the day before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(
        self, request_id: UUID, vm_id: int, kind: OperationKind, at: datetime, longest: timedelta | None
    ) -> None:
        """Append the line."""
        self._append(f"start {request_id} {vm_id} {kind} {at.isoformat()} {longest or '-'}\n")

    def went_through(self, course: Course) -> None:
        """Append a line for each step."""
        self._append(
            "".join(
                f"step {course.request_id} {course.vm_id} {step.what} {step.kb_number or '-'} "
                f"{step.begins.isoformat()} {step.ends.isoformat()} {'failed' if step.has_failed else 'done'}\n"
                for step in course.steps
            )
        )

    def answered(self, answer: Answer) -> None:
        """Keep nothing."""

    def _append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)
