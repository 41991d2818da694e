"""Reads that end: what people ask for by filters may take PostgreSQL long, and must not take it for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import EmptyResultSet
from django.db import OperationalError, connection
from django.db.models import Model, QuerySet
from psycopg.errors import QueryCanceled


class ListTooSlowError(Exception):
    """The database gave up on a list query after `STATEMENT_TIMEOUT_MS`: ask the reader to narrow it down."""


# Scans neither join others half-way nor run in parallel: a search takes its first matches without sorting them, and must
# find the same ones on the next page. The two costs are of indexes and rows in memory or on flash. With those of a disk
# PostgreSQL reads the fleet from its beginning until it has seen a thousand machines that match, and collects all machines
# of a reader's groups before it looks at the thousand that it needs.
BOUNDS = (
    "SELECT set_config('statement_timeout', %s, true), set_config('synchronize_seqscans', 'off', true),"
    " set_config('max_parallel_workers_per_gather', '0', true), set_config('random_page_cost', '1.1', true),"
    " set_config('cpu_index_tuple_cost', '0.05', true); "
)


def fetch_bounded(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement that ends after `STATEMENT_TIMEOUT_MS`: then raises `ListTooSlowError`.

    It travels with its bounds in one message, which PostgreSQL carries out as one transaction.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(BOUNDS + sql, [str(settings.STATEMENT_TIMEOUT_MS), *params])
            cursor.nextset()
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise ListTooSlowError from error
        raise


def count_up_to(rows: QuerySet[Model, Model], most: int) -> int:
    """How many rows there are, `most` where there are more. Raises `ListTooSlowError`."""
    try:
        sql, params = rows.order_by().values("pk")[:most].query.sql_with_params()
    except EmptyResultSet:
        return 0
    return len(fetch_bounded(sql, params))
