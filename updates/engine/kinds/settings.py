"""Changes of patch settings: a machine is told what it shall have, and reports what it has then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from audit.context import acting
from connectors.protocol import Observation
from db.arrays import array
from patching.codes import ErrorCode, EventCode
from patching.terms import OperationState, PatchSettings
from updates.engine.kinds.handler import Ends
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.models import Operation
from updates.selectors.catalogue import LoadedCatalogue
from vms.services.settings import record_settings

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LIMIT = timedelta(minutes=15)


def longest(_row: ClaimedRow) -> timedelta | None:
    """A quarter of an hour: the platform writes them down, and no machine has to work for it."""
    return LIMIT


def is_end(seen: Observation) -> bool:
    """It ends with the settings that the machine has."""
    return seen.settings is not None and len(seen.ends) == 1


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:  # noqa: ARG001 (the handlers' signature)
    """End changes of settings: state first, then what the machines report that they have."""
    reports = [(row, seen.settings) for row, seen in ends if seen.settings is not None]
    winners = transition(changes=[_ended(row, reported) for row, reported in reports], now=now)
    ended = {row.pk: (row.vm_id, reported) for row, reported in reports if row.pk in winners}
    # A statement has one signature: what changes at a machine is signed by the person who asked for it.
    for person, ids in _asked_by(ended).items():
        with acting(person=person):
            record_settings(reported=dict(ended[pk] for pk in ids))


def _asked_by(operation_ids: Collection[UUID]) -> dict[User | None, list[UUID]]:
    """These operations by who asked for them (None: nobody, or an account that is gone)."""
    found: dict[User | None, list[UUID]] = defaultdict(list)
    rows = Operation.objects.filter(pk__any=array(operation_ids)).select_related("requested_by").order_by("pk")
    for row in rows:
        found[row.requested_by].append(row.pk)
    return found


def _ended(row: ClaimedRow, reported: PatchSettings) -> Change:
    is_taken = reported == row.settings
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=OperationState.SUCCEEDED if is_taken else OperationState.COMPLETED_WITH_WARNINGS,
        event=EventCode.FINISHED,
        error_code=None if is_taken else ErrorCode.SETTINGS_NOT_TAKEN,
    )
