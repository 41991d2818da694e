"""The plans of the hottest queries, as PostgreSQL carries them out on the fleet that was just measured."""

from __future__ import annotations

import json

from bench.machine import manage

CODE = """
import json
from django.contrib.auth.models import User
from django.db import connection
from vms.lookups import array
from vms.models import VirtualMachine, Grants
from vms.selectors import search_by_name, _bounded, _rows_beyond, Cursor
from updates.models import IN_FLIGHT_STATES, InstalledPatch, Operation, VmUpdateState
from updates.services import engine
everything = VirtualMachine.objects.visible_to(User.objects.get(username="everything"))
groups = VirtualMachine.objects.visible_to(User.objects.get(username="50 groups"))
singles = VirtualMachine.objects.visible_to(User.objects.get(username="20 VMs"))
vm = VirtualMachine.objects.order_by("pk")[5]
place = Cursor.at(VirtualMachine.objects.order_by("name")[500], "name", is_backward=False)
queries = {
    "list, first page": _rows_beyond(everything, "name", None),
    "list, deep page": _rows_beyond(everything, "name", place),
    "list, filter by update status": _rows_beyond(everything.filter(update_status="updates_available"), "name", None),
    "list, sorted by Critical and Security": _rows_beyond(everything, "-critical", None),
    "list, 50 resource groups": _rows_beyond(groups, "name", None),
    "list, 20 single VMs": _rows_beyond(singles, "name", None),
    "blade, VM": VirtualMachine.objects.filter(pk=vm.pk).select_related("connection", "resource_group__subscription"),
    "blade, history": Operation.objects.filter(vm=vm).order_by("-created_at")[:50],
    "blade, installed updates": InstalledPatch.objects.filter(vm=vm),
}
found = {}
def explain(queries):
    for name, rows in queries.items():
        found[name] = rows.explain(analyze=True, costs=False, timing=False, buffers=True)
connection.cursor().execute("SET max_parallel_workers_per_gather = 0")
explain(queries)
for words in ("we", "web-0000"):
    with _bounded(is_search=True):
        matches = search_by_name(everything.order_by(), words).values_list("pk", flat=True)[:1001]
        page = _rows_beyond(VirtualMachine.objects.filter(pk__any=array(list(matches)[:1000])), "name", None)
        explain({f"list, matches of {words}": matches, f"list, page of {words}": page})
with connection.cursor() as cursor:
    cursor.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS) " + engine._DUE, {"lanes": [0, 1, 2], "kinds": [], "startable": [1, 2], "in_flight": IN_FLIGHT_STATES, "limit": engine.CLAIM_SIZE})
    found["engine, claim"] = "\\n".join(row[0] for row in cursor.fetchall())
print("PLANS " + json.dumps(found))
"""


def plans(environment: dict[str, str]) -> dict[str, str]:
    """EXPLAIN ANALYZE of each, by name."""
    said = manage(environment, "shell", "-v", "0", "-c", CODE)
    found: dict[str, str] = json.loads(next(line for line in said.splitlines() if line.startswith("PLANS "))[6:])
    return found
