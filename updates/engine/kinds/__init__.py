"""What the engine does differently for each kind of operation: one handler a kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from connectors.protocol import Observation
from patching.terms import OperationKind
from updates.engine.kinds import assessment, installation, restart, rollback, settings
from updates.engine.kinds.handler import Handler
from updates.engine.rows import ClaimedRow

# A module is a handler: it has the functions that `Handler` names.
HANDLERS: Mapping[OperationKind, Handler] = {
    OperationKind.ASSESSMENT: cast("Handler", assessment),
    OperationKind.INSTALLATION: cast("Handler", installation),
    OperationKind.ROLLBACK: cast("Handler", rollback),
    OperationKind.SETTINGS: cast("Handler", settings),
    OperationKind.RESTART: cast("Handler", restart),
}


def longest(row: ClaimedRow) -> timedelta | None:
    """How long the operation may take; None: as long as an assessment."""
    return HANDLERS[row.kind].longest(row)


def is_answer(row: ClaimedRow, seen: Observation) -> bool:
    """Whether what was seen can be true of this operation: an installation does not end as an assessment does."""
    return not seen.is_final or HANDLERS[row.kind].is_end(seen)
