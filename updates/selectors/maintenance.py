"""What a maintenance configuration says: its kept values, read strictly and all at once.

One value that cannot be read makes the whole configuration unreadable. Whoever acts by it does nothing then; the page and the
doctor tell the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from patching.own_clocks import DayOfWindows, Timing
from patching.recurrence import (
    BlackoutError,
    RecurrenceError,
    Window,
    blackouts_from_json,
    parse_recurrence,
    zone_of,
)
from patching.scope import Scope, ScopeError
from patching.terms import InstallationPlan
from updates.models import MaintenanceConfiguration
from updates.plans import PlanError, plan_from_json
from updates.texts import (
    BLACKOUT_PROBLEMS,
    PLAN_UNREADABLE,
    RECURRENCE_PROBLEMS,
    SCOPE_PROBLEMS,
    ZONE_UNKNOWN,
    Text,
)

MOST_SHOWN = 60  # characters of a value that cannot be read


class ZoneError(ValueError):
    """No time zone of Windows has this name."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"no zone: {entry}")
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Trouble:
    """A kept value that cannot be read, and why."""

    column: str
    error: BlackoutError | PlanError | RecurrenceError | ScopeError | ZoneError

    @property
    def label(self) -> Text:
        """How the value is called."""
        return {field.name: field.verbose_name for field in MaintenanceConfiguration._meta.fields}[self.column]

    @property
    def words(self) -> str:
        """What is wrong with it."""
        return str(_words_for(self.error)) % {"entry": self.error.entry[:MOST_SHOWN]}


def _words_for(error: BlackoutError | PlanError | RecurrenceError | ScopeError | ZoneError) -> Text:
    match error:
        case BlackoutError():
            return BLACKOUT_PROBLEMS[error.problem]
        case RecurrenceError():
            return RECURRENCE_PROBLEMS[error.problem]
        case ScopeError():
            return SCOPE_PROBLEMS[error.problem]
        case PlanError():
            return PLAN_UNREADABLE
        case ZoneError():
            return ZONE_UNKNOWN


class UnreadableError(ValueError):
    """A maintenance configuration has values that cannot be read; `troubles` names each."""

    def __init__(self, troubles: tuple[Trouble, ...]) -> None:
        super().__init__(", ".join(f"{trouble.column}: {trouble.error}" for trouble in troubles))
        self.troubles = troubles


@dataclass(frozen=True, slots=True)
class Content:
    """What a maintenance configuration says: when windows open, what is installed, on which machines beside its own."""

    timing: Timing
    plan: InstallationPlan
    scope: Scope


def read_configuration(row: MaintenanceConfiguration) -> Content:
    """What this configuration says. Raises UnreadableError naming every value that cannot be read."""
    found, troubles = read_columns(row)
    if troubles:
        raise UnreadableError(troubles)
    timing = Timing(
        recurrence=found["recur_every"],
        start=datetime.combine(row.starts_on, row.starts_at),
        zone=found["time_zone"],
        duration=timedelta(minutes=row.duration_minutes),
        expires_on=row.expires_on,
        blackouts=found["blackouts"],
    )
    return Content(timing, found["plan"], found["scope"])


def open_windows_on(row: MaintenanceConfiguration, own: ZoneInfo | None, *, after: datetime) -> Iterator[Window]:
    """Its windows for machines with this clock that open beyond `after`, without those that a blackout keeps shut.

    None where it cannot be read, or opens on each machine's own clock and nobody knows this one.
    """
    return (day.first.window for day in open_days_of(row, [own] if own else [], after=after))


def open_days_of(row: MaintenanceConfiguration, own: Iterable[ZoneInfo], *, after: datetime) -> Iterator[DayOfWindows]:
    """The same on all of these clocks of machines, by the days on which they open."""
    try:
        timing = read_configuration(row).timing
    except UnreadableError:
        return iter(())
    return timing.days(own, after=after, is_open_only=True)


def troubles_of(row: MaintenanceConfiguration) -> tuple[Trouble, ...]:
    """The values of a configuration that cannot be read; none: all can."""
    return read_columns(row)[1]


def read_columns(row: MaintenanceConfiguration) -> tuple[dict[str, Any], tuple[Trouble, ...]]:
    """The values that can be read, by their columns, and what is wrong with the others."""
    found: dict[str, Any] = {}
    troubles = []
    for column, read in _READERS.items():
        try:
            found[column] = None if column == "time_zone" and row.is_own_clock else read(getattr(row, column))
        except (BlackoutError, PlanError, RecurrenceError, ScopeError, ZoneError) as error:
            troubles.append(Trouble(column, error))
    return found, tuple(troubles)


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except KeyError:
        raise ZoneError(name) from None


_READERS: dict[str, Callable[[Any], object]] = {
    "time_zone": _zone,
    "recur_every": parse_recurrence,
    "blackouts": blackouts_from_json,
    "scope": Scope.from_json,
    "plan": plan_from_json,
}
