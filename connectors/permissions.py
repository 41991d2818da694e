"""What an account may do behind a connection, where its connector can tell: an optional part of a connector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from connectors.protocol import ConnectorError


@dataclass(frozen=True, slots=True)
class Missing:
    """A permission that the account lacks. `where`: a subscription's id; `action` as its platform calls it."""

    where: str
    action: str


@runtime_checkable
class TellsPermissions(Protocol):
    """A connector that knows which permissions it needs."""

    def missing_permissions(self) -> Sequence[Missing] | ConnectorError:
        """What the account lacks, everywhere that it reads; none where nothing is lacking. Never raises."""
        ...
