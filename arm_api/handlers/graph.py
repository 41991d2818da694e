"""Resource Graph: one query over many machines, for what it says alone (arm_api.queries)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models.functions import Lower

from arm_api.calls import Answer, Call, guid_of
from arm_api.documents.graph import assessment_rows, installation_rows, machine_row
from arm_api.documents.machines import Document
from arm_api.errors import ArmCode, ArmError, invalid
from arm_api.kinds import KINDS
from arm_api.queries import Condition, Query, Table, read_query
from arm_api.selectors import available_of, patch_statuses, results_of
from db.arrays import array
from patching.terms import OperationKind, OperationState
from updates.models import Operation
from vms.models import ResourceGroup, VirtualMachine, VirtualMachineQuerySet
from vms.regions import region_name

MOST_ROWS = 1_000
_BATCH = 200  # machines
MOST_MACHINES = 4_000  # that one request looks at
_KNOWN = frozenset({"$top", "$skip", "$skipToken", "resultFormat", "allowPartialScopes", "authorizationScopeFilter"})
KEPT_FOR = timedelta(days=30)  # what Azure keeps of installations


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A query with its options: where to begin (a machine, and how many of its rows were told), how many rows at most."""

    query: Query
    machines: VirtualMachineQuerySet
    after: tuple[int, int]
    most: int


def query(call: Call) -> Answer:
    """Answer a query with objects, in pages."""
    try:
        return _found(call)
    except ArmError as error:
        if not error.target:
            raise
        # An error of Resource Graph has no target: what is wrong stands among the details.
        details = [{"code": "InvalidQuery", "message": f"This is about '{error.target}'."}]
        raise ArmError(error.code, error.message, details=details) from None


def _found(call: Call) -> Answer:
    asked = _read(call)
    if asked.query.is_count:
        return Answer(_page([{"Count": _count(call, asked)}], ""), headers=_QUOTA)
    found: list[Document] = []
    token = ""
    for (pk, offset), row in _rows(call, asked):
        if row is None or len(found) == asked.most:
            token = f"{pk}.{offset}"
            break
        found.append({column: row[column] for column in asked.query.columns})
    if asked.query.limit is not None and len(found) >= asked.query.limit:
        token = ""
    return Answer(_page(found, token), headers=_QUOTA)


def _count(call: Call, asked: _Wanted) -> int:
    total = 0
    for _place, row in _rows(call, asked):
        if row is None:
            raise ArmError(ArmCode.BAD_REQUEST, "There are too many machines to count: narrow the query down.")
        total += 1
    return total


_QUOTA = {"x-ms-user-quota-remaining": "14", "x-ms-user-quota-resets-after": "00:00:05"}


def _page(rows: list[Document], token: str) -> Document:
    """`totalRecords` counts what this page tells: how many follow is not counted beforehand."""
    document: Document = {
        "totalRecords": len(rows),
        "count": len(rows),
        "resultTruncated": "true" if token else "false",
    }
    return document | {"data": rows, "facets": []} | ({"$skipToken": token} if token else {})


def _read(call: Call) -> _Wanted:
    body, options = call.body, call.body.get("options") or {}
    if strange := sorted(set(body) - {"query", "subscriptions", "options", "managementGroups", "facets"}):
        raise ArmError(
            ArmCode.INVALID_CONTENT, f"'{strange[0][:60]}' is not a property of a query.", target=strange[0][:60]
        )
    if body.get("managementGroups") or body.get("facets"):
        raise ArmError(ArmCode.BAD_REQUEST, "Management groups and facets are not supported.")
    if not isinstance(options, dict) or set(options) - _KNOWN or options.get("$skip"):
        raise ArmError(ArmCode.BAD_REQUEST, "Of the options only $top, $skipToken and resultFormat are supported.")
    if str(options.get("resultFormat") or "objectArray").lower() != "objectarray":
        raise invalid("Only resultFormat objectArray is supported.", "options.resultFormat")
    if not isinstance(body.get("query"), str):
        raise invalid("The query must be a text.", "query")
    read = read_query(body["query"])
    top = MOST_ROWS if (given := options.get("$top")) is None else given
    if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MOST_ROWS:
        raise invalid(f"$top must be between 1 and {MOST_ROWS}.", "options.$top")
    most = top if read.limit is None else min(top, read.limit)
    return _Wanted(read, _machines(call, read, body.get("subscriptions")), _begin(options.get("$skipToken")), most)


def _begin(token: object) -> tuple[int, int]:
    if not token:
        return 0, 0
    pk, _, offset = str(token).partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (pk, offset)):
        raise invalid("The $skipToken is not one that this portal gave out.", "options.$skipToken")
    return int(pk), int(offset)


def _machines(call: Call, read: Query, subscriptions: object) -> VirtualMachineQuerySet:
    """The machines that can have rows of this query, as far as the caller may see them."""
    rows = VirtualMachine.objects.granted_by(call.caller.grants).filter(gone_at__isnull=True)
    if subscriptions:
        if not isinstance(subscriptions, list):
            raise invalid("The subscriptions must be a list of ids.", "subscriptions")
        rows = rows.filter(resource_group__subscription__subscription_id__in=[_uuid(text) for text in subscriptions])
    for condition in read.conditions:
        rows = _narrowed(rows, condition, read)
    return rows.select_related("connection", "resource_group__subscription")


def _uuid(text: object) -> UUID:
    try:
        return guid_of(str(text))
    except ValueError:
        raise ArmError(ArmCode.INVALID_SUBSCRIPTION, f"'{str(text)[:60]}' is no subscription.") from None


def _narrowed(rows: VirtualMachineQuerySet, condition: Condition, read: Query) -> VirtualMachineQuerySet:
    """What a condition says of machines; of rows it is asked again, so that this may let more through."""
    if condition.column == "type":
        marks = [kind.mark for kind in KINDS if any(f"/providers/{v}/".startswith(kind.mark) for v in condition.values)]
        if condition.is_prefix or len(marks) == len(KINDS):
            return rows
        return rows.filter(arm_id__contains=marks[0]) if marks else rows.none()
    if condition.column == "id":
        return _by_id(rows, condition)
    if condition.is_prefix:
        return rows
    if condition.column == "name" and read.table is Table.RESOURCES:
        return rows.annotate(lower_name=Lower("name")).filter(lower_name__in=condition.values)
    if condition.column == "subscriptionid":
        return rows.filter(resource_group__subscription__subscription_id__in=[_uuid(v) for v in condition.values])
    if condition.column == "resourcegroup":
        groups = ResourceGroup.objects.annotate(lower_name=Lower("name")).filter(lower_name__in=condition.values)
        return rows.filter(resource_group__in=groups.order_by().values("pk"))
    if condition.column == "location":
        return rows.filter(location__in=[region_name(value) for value in condition.values])
    return rows


def _by_id(rows: VirtualMachineQuerySet, condition: Condition) -> VirtualMachineQuerySet:
    """A machine's own id, or that of something below it. Only whole ids narrow the machines down."""
    ids = []
    for value in condition.values:
        parts = value.split("/")
        if len(parts) < 9:  # /subscriptions/S/resourcegroups/G/providers/P/T/NAME
            return rows
        ids.append("/".join(parts[:9]))
        if condition.is_prefix and len(parts) == 9:
            return rows.filter(arm_id__startswith=value)
    return rows.filter(arm_id__in=ids)


# --- rows ----------------------------------------------------------------------------------------------------------


def _rows(call: Call, asked: _Wanted) -> Iterator[tuple[tuple[int, int], Document | None]]:
    """The rows from where the page begins, each with where it stands; a fixed number of queries for each batch of machines.

    None stands where a request has looked at as many machines as one may; the next one goes on there.
    """
    first, told = asked.after
    last, seen = first - 1, 0
    while batch := list(asked.machines.filter(pk__gt=last).order_by("pk")[:_BATCH]):
        of_batch = _rows_of(call, asked.query, batch)
        for vm in batch:
            rows = [row for row in of_batch[vm.pk] if all(_fits(row, c) for c in asked.query.conditions)]
            for offset, row in enumerate(rows):
                if vm.pk != first or offset >= told:
                    yield (vm.pk, offset), row
        last, seen = batch[-1].pk, seen + len(batch)
        if seen >= MOST_MACHINES:
            yield (last + 1, 0), None
            return


def _fits(row: Document, condition: Condition) -> bool:
    names = {"resourcegroup": "resourceGroup", "subscriptionid": "subscriptionId"}
    return condition.holds(str(row[names.get(condition.column, condition.column)]))


def _rows_of(call: Call, read: Query, batch: Sequence[VirtualMachine]) -> dict[int, list[Document]]:
    if read.table is Table.RESOURCES:
        statuses = patch_statuses(batch)
        return {vm.pk: [machine_row(vm, statuses[vm.pk])] for vm in batch}
    kinds = _row_kinds(read)
    found: dict[int, list[Document]] = defaultdict(list)
    ids = [vm.pk for vm in batch]
    if read.table is Table.ASSESSMENTS:
        statuses, available = patch_statuses(batch), available_of(ids)
        for vm in batch:
            for has_patches in kinds:
                found[vm.pk] += assessment_rows(vm, statuses[vm.pk], available.get(vm.pk, ()), has_patches=has_patches)
        return found
    runs = _installations(call, ids)
    results: Any = results_of([run.pk for of_vm in runs.values() for run in of_vm]) if True in kinds else {}
    for vm in batch:
        told = [(run, results.get(run.pk, ())) for run in runs[vm.pk]]
        for has_patches in kinds:
            found[vm.pk] += installation_rows(vm, told, has_patches=has_patches)
    return found


def _row_kinds(read: Query) -> list[bool]:
    """Whether rows of summaries (False) and of updates (True) can be asked for: what nobody wants is not looked up."""
    of_type = [condition for condition in read.conditions if condition.column == "type" and not condition.is_prefix]
    if not of_type:
        return [False, True]
    return sorted({value.endswith("/softwarepatches") for condition in of_type for value in condition.values})


def _installations(call: Call, vm_ids: Sequence[int]) -> dict[int, list[Operation]]:
    """The installations of the last 30 days that have begun, by machine (one query)."""
    rows = Operation.objects.filter(
        vm__any=array(vm_ids),
        kind=OperationKind.INSTALLATION.value,
        created_at__gt=call.now - KEPT_FOR,
        started_at__isnull=False,
    ).exclude(state=OperationState.CANCELLED.value)
    found: dict[int, list[Operation]] = defaultdict(list)
    for row in rows.order_by("created_at", "pk"):
        found[row.vm_id].append(row)
    return found
