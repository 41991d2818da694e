"""Plans of queries, for tests that must not depend on table statistics.

Autovacuum updates the statistics at any time, and with them PostgreSQL may choose another index or another join. These
helpers leave the planner one way only.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import QuerySet
from django.db.transaction import atomic


def plan_in_order(rows: QuerySet, *, index: str) -> str:  # type: ignore[type-arg]
    """The plan of `rows` as EXPLAIN prints it, with sorts, sequential scans and bitmap scans switched off.

    All other indexes of the table that `index` belongs to are dropped first, except those of constraints. The savepoint is
    rolled back at the end, which brings them back.
    """
    sql, params = rows.query.sql_with_params()
    with atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT other.relname FROM pg_index wanted JOIN pg_index each USING (indrelid) "
            "JOIN pg_class other ON other.oid = each.indexrelid "
            "WHERE wanted.indexrelid = %s::regclass AND each.indexrelid <> wanted.indexrelid AND NOT EXISTS "
            "(SELECT FROM pg_constraint WHERE conindid = each.indexrelid)",
            [index],
        )
        for (other,) in cursor.fetchall():
            cursor.execute(f'DROP INDEX "{other}"')
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {sql}", params)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        connection.set_rollback(True)
    return plan


def no_joins_by_sets() -> None:
    """Leave nested loops as the only kind of join until the test's transaction ends.

    PostgreSQL then runs a sub-select once for each row of the outer table, as it may do when its statistics say that the
    tables are empty.
    """
    names = ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL enable_{name} = off" for name in names))
