"""What stands over the list: the views that its reader may open, how many machines the built-in ones hold, and its columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import CharField, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, JSONObject

from db.arrays import array
from vms.choices import ATTENTION, COLUMNS, DEFAULT_COLUMNS, Column
from vms.models import FleetCount, Grants, SavedView, WordCount, need_of

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class ListedView:
    """A saved view as a tab of the list."""

    id: int
    name: str
    is_shared: bool
    is_own: bool
    address: str


@dataclass(frozen=True, slots=True)
class Totals:
    """How many of the machines that a reader sees there are, need attention, and were never assessed."""

    machines: int
    needs_attention: int
    never_assessed: int


@dataclass(frozen=True, slots=True)
class ListHead:
    """`totals` is None for who was granted single machines: no counter knows them. `has_gone`: whether any machine is gone."""

    columns: tuple[Column, ...]
    has_gone: bool
    views: tuple[ListedView, ...]
    totals: Totals | None


def list_head(user: User, grants: Grants) -> ListHead:
    """What stands over this reader's list, in one query that costs the same however large the fleet."""
    sql = _KEPT
    parameters: list[Any] = [user.pk, user.pk]
    for counter, where, values in _counters(grants):
        counted, own = _counted(counter)
        # The rows that count stand for the table.
        rows = f"(SELECT * FROM {counter._meta.db_table} WHERE {where}) {counter._meta.db_table}"  # noqa: S608 (ours)
        sql += " UNION ALL " + counted.replace(f'FROM "{counter._meta.db_table}"', f"FROM {rows}")
        parameters += [*own, *values]
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found = [(kind, json.loads(data) if isinstance(data, str) else data) for kind, data in cursor.fetchall()]
    counts = [data for kind, data in found if kind == "count"]
    chosen = next((data["columns"] for kind, data in found if kind == "columns"), None)
    return ListHead(
        columns=columns_of(chosen),
        has_gone=any(kind == "any gone" for kind, _data in found),
        views=tuple(_view(data, user.pk) for data in sorted(_views(found), key=_place)),
        totals=Totals(*(sum(line[name] for line in counts) for name in ("all", "need", "never"))) if counts else None,
    )


def columns_of(chosen: object) -> tuple[Column, ...]:
    """The columns of these names that there are; without any, the usual ones."""
    names = [name for name in chosen if name in COLUMNS] if isinstance(chosen, list) else []
    return tuple(COLUMNS[name] for name in dict.fromkeys(names) or DEFAULT_COLUMNS)


def visible_views(user: User) -> QuerySet[SavedView]:
    """The views that a person may open: their own, and those that are shared."""
    return SavedView.objects.filter(Q(owner=user) | Q(is_shared=True)).order_by()


_KEPT = """
SELECT 'view', jsonb_build_object(
    'id', id, 'name', name, 'address', address, 'shared', is_shared, 'owner', owner_id
) FROM vms_savedview WHERE owner_id = %s OR is_shared
UNION ALL SELECT 'columns', jsonb_build_object('columns', columns) FROM vms_listcolumns WHERE user_id = %s
UNION ALL SELECT 'any gone', 'true'::jsonb WHERE EXISTS (SELECT 1 FROM vms_virtualmachine WHERE gone_at IS NOT NULL)
"""
_IN_GROUPS = (
    "resource_group_id = ANY(%s::bigint[]) OR resource_group_id IN "
    "(SELECT id FROM vms_resourcegroup WHERE subscription_id = ANY(%s::bigint[]))"
)


def _counters(grants: Grants) -> list[tuple[type[WordCount] | type[FleetCount], str, list[str]]]:
    """Counters whose lines add up to what these grants lead to: which lines of them, and the parameters of that."""
    if grants.are_of_everything:
        return [(FleetCount, "true", []), (WordCount, "NOT is_total", [])]
    if grants.vm_ids:
        return []
    return [(WordCount, _IN_GROUPS, [array(sorted(grants.group_ids)), array(sorted(grants.subscription_ids))])]


@cache
def _counted(counter: type[WordCount] | type[FleetCount]) -> tuple[str, tuple[Any, ...]]:
    """What selects the sums over a counter. Made once: it takes longer to write down than to carry out."""
    # Counters do not tell how many other updates are missing, which is below what needs attention.
    lines = counter.objects.order_by().annotate(
        kind=Value("count", output_field=CharField()), need=need_of(Q(lacks_critical=True), Q(pk__isnull=True))
    )
    sums = {"all": None, "need": Q(need__gte=int(ATTENTION)), "never": Q(patch_set=0)}
    data = {name: Coalesce(Sum("machines", filter=narrowed), 0) for name, narrowed in sums.items()}
    found: tuple[str, tuple[Any, ...]] = (
        lines.values("kind").annotate(data=JSONObject(**data)).values_list("kind", "data").query.sql_with_params()
    )
    return found


def _views(found: list[tuple[str, Any]]) -> list[Mapping[str, Any]]:
    return [data for kind, data in found if kind == "view"]


def _place(view: Mapping[str, Any]) -> tuple[bool, str, int]:
    return view["shared"], view["name"].casefold(), view["id"]


def _view(data: Mapping[str, Any], user_id: int) -> ListedView:
    return ListedView(data["id"], data["name"], data["shared"], data["owner"] == user_id, data["address"])
