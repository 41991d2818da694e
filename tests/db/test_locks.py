"""A lock is held by one transaction of the whole database, until that transaction ends."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError

from db.locks import Lock, hold, try_to_hold

ROOT = Path(__file__).resolve().parents[2]


def elsewhere(lock: Lock) -> bool:
    """Whether another session gets the lock now."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with transaction.atomic():
                answers.append(try_to_hold(lock))
        finally:
            connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.django_db(transaction=True)
def test_a_lock_is_held_until_the_transaction_ends_and_no_other_with_it() -> None:
    with transaction.atomic():
        hold(Lock.INVENTORY_IMPORT)
        assert not elsewhere(Lock.INVENTORY_IMPORT)
        assert elsewhere(Lock.NEW_PATCHES)
    assert elsewhere(Lock.INVENTORY_IMPORT)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("take", [hold, try_to_hold])
def test_a_lock_outside_of_a_transaction_is_an_error(take: object) -> None:
    assert callable(take)
    with pytest.raises(TransactionManagementError, match="ROLLOUT_STARTS"):
        take(Lock.ROLLOUT_STARTS)


def test_advisory_locks_are_taken_by_name_alone() -> None:
    folders = ("db", "vms", "updates", "hotpatch_portal", "ui", "connectors")
    offenders = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"pg_(try_)?advisory", path.read_text()) and path.name != "locks.py"
    ]
    assert offenders == []
