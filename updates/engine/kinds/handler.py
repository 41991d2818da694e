"""What a kind of operation tells the engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from connectors.protocol import Observation
from updates.engine.rows import ClaimedRow
from updates.selectors.catalogue import LoadedCatalogue

Ends = Sequence[tuple[ClaimedRow, Observation]]


class Handler(Protocol):
    """One kind of operation. Everything takes collections, in a fixed number of statements."""

    def longest(self, row: ClaimedRow) -> timedelta | None:
        """How long the operation may take; None: as long as an assessment."""
        ...

    def is_end(self, seen: Observation) -> bool:
        """Whether an observation that is final has the result that this kind ends with."""
        ...

    def finish(self, ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
        """End these operations: state first, then what they found, for those alone that this worker ended. Atomic."""
        ...
