"""The plans of the hottest queries, as PostgreSQL carries them out on the fleet that was just measured."""

from __future__ import annotations

import json
from typing import Any

from bench.machine import manage

MARK = "PLANS "
CODE = "from bench.explain import print_plans; print_plans()"


def print_plans() -> None:
    """Print EXPLAIN ANALYZE of each query as one line of JSON. Runs in a process of the portal that was measured."""
    from django.db import connection

    from vms.selectors import fetch_bounded

    lists, others = _lists(), _others()
    found = {}
    with connection.cursor() as cursor:
        for name, (sql, parameters) in (lists | others).items():
            explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS) " + sql
            if name in lists:
                lines = fetch_bounded(explain, parameters)
            else:
                cursor.execute(explain, parameters)
                lines = cursor.fetchall()
            found[name] = "\n".join(line for (line,) in lines)
    print(MARK + json.dumps(found))


def _lists() -> dict[str, tuple[str, Any]]:
    from django.contrib.auth.models import User

    from vms.models import VirtualMachine
    from vms.selectors import ORDERS, WAYS, Cursor, page_sql, search_by_name

    everything, groups, singles = (
        VirtualMachine.objects.visible_to(User.objects.get(username=name))
        for name in ("everything", "50 groups", "20 VMs")
    )
    place = Cursor.at(VirtualMachine.objects.order_by("name")[500], ORDERS["name"], is_backward=False)
    lists = {
        "list, first page": (everything, "name", None),
        "list, deep page": (everything, "name", place),
        "list, filter by update status": (everything.filter(update_status="updates_available"), "name", None),
        "list, sorted by Critical and Security": (everything, "-critical", None),
        "list, longest not assessed": (everything, "assessed", None),
        "list, 50 resource groups": (groups, "name", None),
        "list, 20 single VMs": (singles, "name", None),
        "list, matches of we": (search_by_name(everything, "we"), "name", None),
        "list, matches of web-0000": (search_by_name(everything, "web-0000"), "name", None),
        "list, matches of we in 50 resource groups": (search_by_name(groups, "we"), "name", None),
    }
    return {
        name: page_sql(vms.order_by(), WAYS[order][-1], place, is_search="matches" in name)
        for name, (vms, order, place) in lists.items()
    }


def _others() -> dict[str, tuple[str, Any]]:
    from patching.terms import OperationState
    from updates.engine import claim
    from updates.models import IN_FLIGHT_STATES, InstalledPatch, Operation
    from updates.services.operations import database_now
    from vms.models import Connection, VirtualMachine

    vm = VirtualMachine.objects.order_by("pk")[5]
    rows = {
        "blade, VM": VirtualMachine.objects.filter(pk=vm.pk).select_related(
            "connection", "resource_group__subscription"
        ),
        "blade, history": Operation.objects.filter(vm=vm).order_by("-created_at")[:50],
        "blade, installed updates": InstalledPatch.objects.filter(vm=vm),
    }
    connections = list(Connection.objects.order_by("pk").values_list("pk", flat=True))
    claimed = {
        "priorities": [0, 1, 2],
        "in_flight": list(IN_FLIGHT_STATES),
        "queued": OperationState.QUEUED.value,
        "now": database_now(),
        "connections": connections,
        "buckets": [""] * len(connections),
        "limits": [claim.CLAIM_SIZE] * len(connections),
    }
    return {
        **{name: query.query.sql_with_params() for name, query in rows.items()},
        "engine, claim of what is in flight": (claim._IN_FLIGHT, claimed),
        "engine, claim of what is queued": (claim._QUEUED, claimed),
    }


def plans(environment: dict[str, str]) -> dict[str, str]:
    """EXPLAIN ANALYZE of each, by name."""
    said = manage(environment, "shell", "-v", "0", "-c", CODE)
    found: dict[str, str] = json.loads(next(line for line in said.splitlines() if line.startswith(MARK))[len(MARK) :])
    return found
