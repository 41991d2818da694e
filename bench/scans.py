"""What every query of a page reads: EXPLAIN ANALYZE of each while the page is made, and where a large table is scanned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.machine import manage

MARK = "SCANS "
LARGE = 10  # of a table with more rows than a tenth of the machines a sequential scan grows with the fleet


def print_scans(pages: dict[str, tuple[str, str]]) -> None:
    """Print for each page (its address and who asks) what its queries read, as one line of JSON."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client

    large = _large_tables()
    found = {}
    for name, (path, who) in pages.items():
        client = Client(headers={"host": "127.0.0.1"})
        client.force_login(User.objects.get(username=who))
        reader = PlanReader()
        with connection.execute_wrapper(reader):
            answer = client.get(path)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code}")
        b"".join(answer.streaming_content if answer.streaming else [])
        nodes = [node for plan in reader.plans for node in _nodes(plan) if node.get("Relation Name") in large]
        found[name] = {
            "queries": len(reader.plans),
            "scans": sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}),
            "rows": max((_rows(node) for node in nodes), default=0),
        }
    print(MARK + json.dumps(found))


class PlanReader:
    """Explains each query before it is carried out, under the same bounds."""

    def __init__(self) -> None:
        self.plans: list[dict[str, Any]] = []
        self.is_reading = False

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Called by Django in place of the driver's execute."""
        if not self.is_reading and isinstance(sql, str) and not many:
            self.is_reading = True
            try:
                self._explain(sql, params or ())
            finally:
                self.is_reading = False
        return execute(sql, params, many, context)

    def _explain(self, sql: str, params: Sequence[Any]) -> None:
        from django.db import connection

        from db.bounded import BOUNDS, fetch_bounded

        explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
        if sql.startswith(BOUNDS):
            rows = fetch_bounded(explain + sql.removeprefix(BOUNDS), list(params)[1:])
        elif sql.lstrip().upper().startswith(("SELECT", "WITH")):
            with connection.cursor() as cursor:
                cursor.execute(explain + sql, params)
                rows = cursor.fetchall()
        else:
            return
        self.plans.append(rows[0][0][0]["Plan"])


def _large_tables() -> set[str]:
    from django.db import connection

    from vms.models import VirtualMachine

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND reltuples > %s",
            [VirtualMachine.objects.count() / LARGE],
        )
        return {name for (name,) in cursor.fetchall()}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _rows(node: dict[str, Any]) -> int:
    """Rows that a node took from its table: what it gave on and what it threw away."""
    thrown = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return round((node["Actual Rows"] + thrown) * node["Actual Loops"])


def scans(environment: dict[str, str], pages: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """For each page: how many queries, the large tables that one of them scans, the most rows that a node read."""
    code = f"from bench.scans import print_scans; print_scans({pages!r})"
    said = manage(environment, "shell", "-v", "0", "-c", code)
    found: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith(MARK))[len(MARK) :])
    return found
