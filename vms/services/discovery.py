"""Asking a connection for its machines, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.catalogue import Catalogue
from connectors.protocol import ConnectorError, Unread
from connectors.registry import connector_for
from vms.models import Connection
from vms.services.inventory_rows import InventoryRow, inventory_row

RETRY_AFTER = 10.0  # seconds until a connection that could not answer is asked again, if it does not say


class DiscoveryError(Exception):
    """The connection does not list its machines. `code` is the connector's, `retry_after` the seconds until it may."""

    def __init__(self, error: ConnectorError) -> None:
        super().__init__(error.code, error.detail)
        self.code = error.code
        self.detail = error.detail
        self.retry_after = (error.retry_after or RETRY_AFTER) if error.is_retryable else None


@dataclass(frozen=True, slots=True)
class DiscoveredPage:
    """Rows that a connector listed; `next_cursor` empty: these were the last ones. `unread`: what it could not look at."""

    rows: Sequence[InventoryRow]
    next_cursor: str
    unread: Sequence[Unread] = ()


def discovered_page(*, connection: Connection, cursor: str, first: int) -> DiscoveredPage:
    """The page behind this cursor (empty: the first one); its rows are numbered from `first`. Raises DiscoveryError."""
    connector = connector_for(connection.kind, connection.config, catalogue=Catalogue((), ()))
    page = connector.discover(cursor)
    if isinstance(page, ConnectorError):
        raise DiscoveryError(page)
    rows = [inventory_row(number, value=found.document) for number, found in enumerate(page.machines, first)]
    return DiscoveredPage(rows, page.next_cursor, page.unread)
