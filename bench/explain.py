"""The plans of the hottest queries, as PostgreSQL carries them out on the fleet that was just measured."""

from __future__ import annotations

import json

from bench.machine import manage

CODE = """
import json
from django.contrib.auth.models import User
from django.db import connection
from vms.models import VirtualMachine, Grants
from vms.selectors import fetch_bounded, search_by_name, page_sql, Cursor, ORDERS
from updates.models import IN_FLIGHT_STATES, InstalledPatch, Operation, VmUpdateState
from updates.services import engine
everything = VirtualMachine.objects.visible_to(User.objects.get(username="everything"))
groups = VirtualMachine.objects.visible_to(User.objects.get(username="50 groups"))
singles = VirtualMachine.objects.visible_to(User.objects.get(username="20 VMs"))
vm = VirtualMachine.objects.order_by("pk")[5]
place = Cursor.at(VirtualMachine.objects.order_by("name")[500], ORDERS["name"], is_backward=False)
lists = {
    "list, first page": (everything, "name", None),
    "list, deep page": (everything, "name", place),
    "list, filter by update status": (everything.filter(update_status="updates_available"), "name", None),
    "list, sorted by Critical and Security": (everything, "-critical", None),
    "list, 50 resource groups": (groups, "name", None),
    "list, 20 single VMs": (singles, "name", None),
    "list, matches of we": (search_by_name(everything, "we"), "name", None),
    "list, matches of web-0000": (search_by_name(everything, "web-0000"), "name", None),
    "list, matches of we in 50 resource groups": (search_by_name(groups, "we"), "name", None),
}
rows = {
    "blade, VM": VirtualMachine.objects.filter(pk=vm.pk).select_related("connection", "resource_group__subscription"),
    "blade, history": Operation.objects.filter(vm=vm).order_by("-created_at")[:50],
    "blade, installed updates": InstalledPatch.objects.filter(vm=vm),
}
queries = {
    **{
        name: page_sql(vms.order_by(), ORDERS[order], place, is_search="matches" in name)
        for name, (vms, order, place) in lists.items()
    },
    **{name: query.query.sql_with_params() for name, query in rows.items()},
    "engine, claim": (engine._DUE, {"lanes": [0, 1, 2], "kinds": [], "startable": [1, 2], "in_flight": IN_FLIGHT_STATES, "limit": engine.CLAIM_SIZE}),
}
found = {}
with connection.cursor() as cursor:
    for name, (sql, params) in queries.items():
        explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS) " + sql
        if name in lists:
            lines = fetch_bounded(explain, params)
        else:
            cursor.execute(explain, params)
            lines = cursor.fetchall()
        found[name] = "\\n".join(line for (line,) in lines)
print("PLANS " + json.dumps(found))
"""


def plans(environment: dict[str, str]) -> dict[str, str]:
    """EXPLAIN ANALYZE of each, by name."""
    said = manage(environment, "shell", "-v", "0", "-c", CODE)
    found: dict[str, str] = json.loads(next(line for line in said.splitlines() if line.startswith("PLANS "))[6:])
    return found
