"""Advisory locks by name: only one transaction of the whole database holds each of them at a time.

They guard what no row stands for. Every lock of the portal is in `Lock`, so that no two share a number.
"""

from __future__ import annotations

from enum import IntEnum

from django.db import connection
from django.db.transaction import TransactionManagementError


class Lock(IntEnum):
    """What is locked. The numbers stay as they are: workers of two versions run side by side during an upgrade."""

    INVENTORY_IMPORT = 0x686F7470  # two imports would write the same machines in opposite orders
    OWNERS = 0x6F776E72  # without it two people could each take the role of one of the last two Owners, and none would be left
    NEW_PATCHES = 0x70617463  # two writers of new patches would wait for each other's rows in opposite orders
    ROLLOUT_STARTS = 0x726F6C6C  # two rollouts would both see a region's pair untouched, and start in both
    WORD_COUNTERS = 0x776F7264  # two folders would add the same lines to the totals


def hold(lock: Lock) -> None:
    """Wait for the lock, then hold it until the transaction ends. Raises `TransactionManagementError` outside of one."""
    _check_transaction(lock)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock.value])


def try_to_hold(lock: Lock) -> bool:
    """As `hold`, but without waiting; False: another transaction holds the lock."""
    _check_transaction(lock)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock.value])
        row: tuple[bool] = cursor.fetchone()
    return row[0]


def _check_transaction(lock: Lock) -> None:
    """Outside of a transaction the lock would be let go at the end of the statement that takes it."""
    if not connection.in_atomic_block:
        raise TransactionManagementError(f"The lock {lock.name} needs a transaction.")
