"""A sweep: claim and work in turn until nothing is due or its time is over. Slow connections work beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import structlog
from django.conf import settings
from django.db import connection as database

from connectors.protocol import Connector, Traits
from connectors.registry import connector_for
from updates.engine.claim import STOPPING, Claim, claim_due, claims_of
from updates.engine.work import Work
from updates.models import Priority
from updates.selectors.catalogue import LoadedCatalogue, load_catalogue
from updates.services.bulk import are_waiting, hand_out_block
from vms.models import Connection

log = structlog.get_logger(__name__)

INTERACTIVE_PRIORITIES = (Priority.INTERACTIVE, Priority.OBSERVE)
ALL_PRIORITIES = (Priority.INTERACTIVE, Priority.OBSERVE, Priority.BULK)
TURN_SECONDS = 1.0  # how long to wait for another worker to finish its block of a bulk request
# A claim that takes longer than this is worked on beside the sweep, so that no other connection waits for it.
SLOW_SECONDS = 1.0
# How many slow connections one process works on at the same time, each in a thread with a database connection of its own.
SLOW_CONNECTIONS = 8
# While slow connections work and nothing else is due, the sweep looks again this often, or when one of them is done.
LOOK_AGAIN_SECONDS = 0.25

ConnectorFactory = Callable[[Connection, LoadedCatalogue], Connector]


def connector_of(row: Connection, catalogue: LoadedCatalogue) -> Connector:
    """The connector behind a connection."""
    return connector_for(row.kind, row.config, catalogue=catalogue.facts)


def sweep(
    *,
    priorities: Sequence[int] = ALL_PRIORITIES,
    connection_kinds: Sequence[str] = (),
    seconds: float | None = None,
    connector_factory: ConnectorFactory = connector_of,
    is_waiting: bool = True,
    beside: SlowConnections | None = None,
) -> int:
    """Work on due operations until none are left or the time is over; returns how many steps were made.

    With `Priority.BULK` among `priorities`, waiting bulk requests are handed out as well, a block in turn with what is due.
    `connection_kinds`: only those behind connections of these kinds; none named: all. `seconds`: OPERATION_SWEEP_SECONDS if not said.
    `is_waiting`: return when the slow connections that this sweep took up are done; else they go on in their threads.
    `beside`: the slow connections of this process, if they are not the usual ones.
    """
    slow = SLOW if beside is None else beside
    ends_at = time.monotonic() + (settings.OPERATION_SWEEP_SECONDS if seconds is None else seconds)
    connectors = Connectors(connector_factory)
    steps = 0
    wait_seconds = 0.0
    mine: set[threading.Thread] = set()
    while time.monotonic() < ends_at and not STOPPING.is_set():
        block = None
        if Priority.BULK in priorities:
            block = hand_out_block(
                connection_kinds=connection_kinds, wait_seconds=wait_seconds, is_quick=connectors.is_quick
            )
        if block is not None and block.begun:
            begun = claims_of(
                block.begun, now=block.begun[0].created_at, claimed_at=block.claimed_at, traits_of=connectors.traits_of
            )
            steps += sum(connectors.work(claim) for claim in begun)
        busy = slow.busy()
        claims = claim_due(
            priorities=priorities,
            connection_kinds=connection_kinds,
            traits_of=connectors.traits_of,
            skipped=busy,
            at_most=SLOW_SECONDS if len(busy) >= SLOW_CONNECTIONS else None,
        )
        for claim in sorted(claims, key=lambda claim: -claim.expected_seconds):
            thread = slow.take_up(claim, connectors) if claim.expected_seconds > SLOW_SECONDS else None
            if thread is None:
                steps += connectors.work(claim)
            else:
                mine.add(thread)
                steps += len(claim.rows)
        wait_seconds = 0.0
        if claims or block is not None:
            continue
        if Priority.BULK in priorities and are_waiting():
            # Idle, but a bulk request waits: block on its row for a moment instead of spinning. The next block may be ours.
            wait_seconds = TURN_SECONDS
        elif any(thread.is_alive() for thread in mine):
            slow.wait(LOOK_AGAIN_SECONDS)
        else:
            break
    if is_waiting:
        for thread in mine:
            thread.join()
    return steps


class Connectors:
    """The catalogue and the connectors, made once for the length of one sweep."""

    def __init__(self, factory: ConnectorFactory) -> None:
        self._factory = factory
        self._made: dict[int, Connector | None] = {}

    @cached_property
    def catalogue(self) -> LoadedCatalogue:
        """The catalogue as it is now."""
        return load_catalogue()

    def traits_of(self, connection_id: int) -> Traits | None:
        """What the engine must know of a connection; None: its connector cannot be made, and nothing is claimed of it."""
        connector = self._connector(connection_id)
        return connector.traits if connector is not None else None

    def is_quick(self, connection_id: int) -> bool:
        """Whether a whole block can start in no time and out of no budget but the connection's own, as its kind declares."""
        traits = self.traits_of(connection_id)
        return traits is not None and not traits.pace.start_seconds and traits.buckets is None

    def work(self, claim: Claim) -> int:
        """Step everything in the claim; how many."""
        connector = self._connector(claim.connection_id)
        return Work(claim, connector, self.catalogue).do() if connector is not None else 0

    def _connector(self, connection_id: int) -> Connector | None:
        if connection_id not in self._made:
            try:
                row = Connection.objects.get(pk=connection_id)
                self._made[connection_id] = self._factory(row, self.catalogue)
            except Exception:  # whatever is wrong with one connection's configuration stops no other
                log.exception("connector_not_made", connection_id=connection_id)
                self._made[connection_id] = None
        return self._made[connection_id]


class SlowConnections:
    """The connections of this process that are worked on in threads of their own, one thread for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._is_done = threading.Event()

    def busy(self) -> list[int]:
        """Connections whose thread is at work: nothing further is claimed of them here."""
        with self._lock:
            return list(self._threads)

    def take_up(self, claim: Claim, connectors: Connectors) -> threading.Thread | None:
        """Work on the claim in a thread; None where there are as many as there may be, or one of this connection."""
        thread = threading.Thread(
            target=self._work, args=(claim, connectors), name=f"connection-{claim.connection_id}", daemon=True
        )
        with self._lock:
            if len(self._threads) >= SLOW_CONNECTIONS or claim.connection_id in self._threads:
                return None
            self._threads[claim.connection_id] = thread
        self._is_done.clear()
        thread.start()
        return thread

    def wait(self, seconds: float) -> None:
        """Wait until one of them is done, but no longer than this."""
        self._is_done.wait(seconds)
        self._is_done.clear()

    def stop(self, seconds: float) -> None:
        """Wait until their running calls are over, but no longer than this. Set `STOPPING` before."""
        ends_at = time.monotonic() + seconds
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _work(self, claim: Claim, connectors: Connectors) -> None:
        try:
            connectors.work(claim)
        except Exception:
            log.exception("slow_connection_failed", connection_id=claim.connection_id)
        finally:
            database.close()
            with self._lock:
                self._threads.pop(claim.connection_id, None)
            self._is_done.set()


SLOW = SlowConnections()
