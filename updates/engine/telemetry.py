"""Every set of operations that changes state and every call of a connector: one log line, and whoever wants to count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import structlog
from django.db import transaction

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """Operations of one kind that one statement moved from one state to another. `outcome`: their error code, if any."""

    kind: str
    from_state: str
    to_state: str
    outcome: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Called:
    """One call of a connector (`start`, `observe`, `find`) for `count` operations; `outcome`: `answered` or `failed`."""

    connection_id: int
    call: str
    outcome: str
    count: int
    seconds: float


T = TypeVar("T", Moved, Called)
# Floor 4 imports nothing above it: whoever keeps counters adds a function here when the process starts.
on_moved: list[Callable[[Moved], object]] = []
on_called: list[Callable[[Called], object]] = []


def count_transition(moved: Iterable[Moved]) -> None:
    """Log and count sets that changed state, once the transaction that moved them has committed."""
    for one in moved:
        transaction.on_commit(partial(_tell, "operations_moved", one, on_moved), robust=True)


def count_call(called: Called) -> None:
    """Log and count one call of a connector."""
    _tell("connector_called", called, on_called)


def _tell(event: str, what: T, listeners: list[Callable[[T], object]]) -> None:
    log.info(event, **asdict(what))
    for listener in listeners:
        listener(what)
