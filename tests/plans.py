"""How PostgreSQL would read a query, whatever it believes of the tables at that moment.

How many rows the planner expects depends on when the server's own clean-up last looked at a table, so a test that
asks which of two indexes it prefers fails on some days. These ask what an index can serve.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import QuerySet
from django.db.transaction import atomic


def plan_in_order(rows: QuerySet, *, index: str) -> str:  # type: ignore[type-arg]
    """The plan of a query that may neither sort nor read a table from its beginning.

    Of the table of `index`, no other index is there but that of its key; all are back when this returns.
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
    """From here to the end of the test's transaction: one table is gone through for each row of another.

    So a sub-select is run for each row, as on a day on which the planner believes the tables to be empty.
    """
    names = ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL enable_{name} = off" for name in names))
