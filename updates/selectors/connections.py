"""Connections with what goes on behind them, and a test of one."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection as database

from connectors.permissions import Guide, Missing, TellsPermissions
from connectors.protocol import Capability, ConnectorError
from connectors.registry import UnusableError, guide_of, kit_of, make_connector, secret_variables
from connectors.simulator import MISFORTUNE_TAG, misfortune_text
from patching import terms
from patching.releases import as_of, is_offered, release_order
from patching.terms import OperationState, ProductLine, ReleaseType
from updates.models import IN_FLIGHT_STATES
from updates.selectors.catalogue import LoadedCatalogue, load_catalogue
from vms.models import Connection, VirtualMachine
from vms.services.connections import UNTIL_RESUMED
from vms.texts import trouble_words

MAX_COUNT = 1_000
MAX_MISFORTUNES = 100
# What people have a use for; the others are between the engine and the connector.
TOLD_CAPABILITIES = (
    Capability.SETTINGS,
    Capability.UNINSTALL,
    Capability.INSTALLED_UPDATES,
)


@dataclass(frozen=True, slots=True)
class ConnectionPicture:
    """A connection and how much there is behind it; counts stop one above `MAX_COUNT`."""

    connection: Connection
    vms: int
    queued: int
    in_flight: int
    now: datetime

    @property
    def is_paused(self) -> bool:
        """Whether nothing is started at the moment."""
        until = self.connection.paused_until
        return until is not None and until > self.now

    @property
    def is_paused_for_good(self) -> bool:
        """Whether it stays paused until somebody resumes it."""
        return self.connection.paused_until == UNTIL_RESUMED

    @property
    def trouble(self) -> list[str]:
        """Why it cannot be used, a sentence for each thing to mend; empty where nothing speaks against it."""
        trouble = self.connection.trouble
        return trouble_words(trouble) if trouble is not None else []

    @property
    def guide(self) -> Guide | None:
        """What somebody does on the other side first; None where there is nothing."""
        return guide_of(self.connection.kind, self.connection.config)

    @property
    def secret_variables(self) -> list[str]:
        """The environment variables from which its secrets are read."""
        return secret_variables(self.connection.kind, self.connection.config)

    @property
    def has_kit(self) -> bool:
        """Whether a report can prove it on the real thing."""
        return kit_of(self.connection.kind) is not None

    @property
    def quoted_name(self) -> str:
        """Its name as a shell takes it."""
        return shlex.quote(self.connection.name)

    @property
    def is_qualification_outdated(self) -> bool:
        """Whether a report counted before its configuration was changed."""
        return bool(self.connection.qualification) and self.connection.qualified_at is None

    @property
    def is_simulated(self) -> bool:
        """Whether its machines are simulated."""
        return self.connection.traits.is_simulated

    @property
    def abilities(self) -> list[tuple[Capability, bool]]:
        """What a connector can do beyond starting and observing, and whether this one can."""
        return [(capability, capability in self.connection.capabilities) for capability in TOLD_CAPABILITIES]

    @property
    def count_texts(self) -> tuple[str, str, str]:
        """VMs, queued, in flight, as text: 1,000+ beyond 1,000."""
        vms, queued, in_flight = (
            f"{count:,}" if count <= MAX_COUNT else f"{MAX_COUNT:,}+"
            for count in (self.vms, self.queued, self.in_flight)
        )
        return vms, queued, in_flight


_COUNTS = """
SELECT c.id,
    (SELECT count(*) FROM (SELECT 1 FROM vms_virtualmachine v WHERE v.connection_id = c.id LIMIT %(limit)s) x),
    (SELECT count(*) FROM (SELECT 1 FROM updates_operation o
                           WHERE o.connection_id = c.id AND o.state = %(queued)s AND o.next_step_at IS NOT NULL
                           LIMIT %(limit)s) x),
    (SELECT count(*) FROM (SELECT 1 FROM updates_operation o
                           WHERE o.connection_id = c.id AND o.state = ANY(%(in_flight)s) LIMIT %(limit)s) x)
FROM vms_connection c WHERE c.id = ANY(%(ids)s)
"""


def connection_pictures(connections: Sequence[Connection], *, now: datetime) -> list[ConnectionPicture]:
    """What is behind each of these connections, in one query."""
    with database.cursor() as cursor:
        cursor.execute(
            _COUNTS,
            {
                "limit": MAX_COUNT + 1,
                "queued": OperationState.QUEUED.value,
                "in_flight": IN_FLIGHT_STATES,
                "ids": [connection.pk for connection in connections],
            },
        )
        counts = {pk: (vms, queued, in_flight) for pk, vms, queued, in_flight in cursor.fetchall()}
    return [ConnectionPicture(connection, *counts.get(connection.pk, (0, 0, 0)), now) for connection in connections]


def machines_with_misfortune(connection: Connection) -> list[tuple[VirtualMachine, str]]:
    """The simulated machines that suffer something, and what; the first hundred by name."""
    rows = VirtualMachine.objects.filter(connection=connection, tags__has_tag=MISFORTUNE_TAG).order_by("name")
    return [(vm, misfortune_text(vm.tags)) for vm in rows[:MAX_MISFORTUNES]]


@dataclass(frozen=True, slots=True)
class NewestRelease:
    """The newest baseline or hotpatch of a product line that the connection's catalogue date lets through."""

    line: ProductLine
    release: terms.Release | None


@dataclass(frozen=True, slots=True)
class ConnectionTest:
    """How a test of a connection went: `error` empty where it answered, and what it would offer.

    `missing`: the permissions that its account lacks, as far as its kind can tell.
    """

    error: str
    milliseconds: int
    discovered: int
    newest: tuple[NewestRelease, ...]
    missing: tuple[Missing, ...] = ()


def probe_connection(connection: Connection, *, now: datetime) -> ConnectionTest:
    """Make the connector as the engine does and ask it for its inventory. It changes nothing and never raises."""
    catalogue = load_catalogue()
    started = time.monotonic()
    error, discovered = "", 0
    missing: tuple[Missing, ...] = ()
    try:
        connector = make_connector(connection.kind, connection.config, catalogue=catalogue.facts)
        page = connector.discover()
        if isinstance(page, ConnectorError):
            error = f"{page.code} {page.detail}".strip()
        else:
            discovered = len(page.machines)
        told = connector.missing_permissions() if isinstance(connector, TellsPermissions) and not error else ()
        if isinstance(told, ConnectorError):
            error = f"{told.code} {told.detail}".strip()
        else:
            missing = tuple(told)
    except UnusableError as problem:
        error = " ".join(trouble_words(problem.trouble))
    except Exception as problem:  # whatever a connector's trouble is, the page says it
        error = f"{type(problem).__name__}: {problem}"
    return ConnectionTest(
        error=error,
        milliseconds=round((time.monotonic() - started) * 1000),
        discovered=discovered,
        newest=tuple(NewestRelease(line, _newest(line, connection, catalogue, now)) for line in ProductLine),
        missing=missing,
    )


_MONTHLY = frozenset({ReleaseType.BASELINE, ReleaseType.HOTPATCH})


def _newest(
    line: ProductLine, connection: Connection, catalogue: LoadedCatalogue, now: datetime
) -> terms.Release | None:
    moment = as_of(connection.catalogue_date, now)
    offered = [
        release
        for release in catalogue.facts.releases
        if release.product_line is line and release.type in _MONTHLY and is_offered(release, moment)
    ]
    return max(offered, key=release_order, default=None)
