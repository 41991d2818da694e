"""What stands over the list: the views that its reader may open, how many machines the built-in ones hold, and its columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import CharField, Model, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, JSONObject

from db.arrays import array
from vms.choices import ATTENTION, COLUMNS, DEFAULT_COLUMNS, Column
from vms.models import FleetCount, Grants, ListColumns, ResourceGroup, SavedView, WordCount, need_of

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
    """`totals` is None for who was granted single machines: no counter knows them."""

    columns: tuple[Column, ...]
    views: tuple[ListedView, ...]
    totals: Totals | None


def list_head(user: User, grants: Grants) -> ListHead:
    """What stands over this reader's list, in one query that costs the same however large the fleet."""
    parts: list[QuerySet[Any, Any]] = [
        _told(
            "view", visible_views(user), id="id", name="name", address="address", shared="is_shared", owner="owner_id"
        ),
        _told("columns", ListColumns.objects.filter(user=user), columns="columns"),
    ]
    if not grants.vm_ids or grants.are_of_everything:
        parts += [_counted(rows) for rows in _counters(grants)]
    sql, parameters = parts[0].union(*parts[1:], all=True).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found = [(kind, json.loads(data) if isinstance(data, str) else data) for kind, data in cursor.fetchall()]
    counts = [data for kind, data in found if kind == "count"]
    chosen = next((data["columns"] for kind, data in found if kind == "columns"), None)
    return ListHead(
        columns=columns_of(chosen),
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


def _told(kind: str, rows: QuerySet[Any], **fields: Any) -> QuerySet[Any, Any]:
    said = rows.order_by().annotate(kind=Value(kind, output_field=CharField()), data=JSONObject(**fields))
    found: QuerySet[Any, Any] = said.values_list("kind", "data")
    return found


def _counters(grants: Grants) -> list[QuerySet[Any]]:
    """The lines of the counters that add up to what these grants lead to."""
    if grants.are_of_everything:
        return [FleetCount.objects.order_by(), WordCount.objects.order_by().filter(is_total=False)]
    groups = Q(resource_group__any=array(sorted(grants.group_ids)))
    if subscriptions := grants.subscription_ids:
        groups |= Q(resource_group__in=ResourceGroup.objects.filter(subscription__in=subscriptions).values("pk"))
    return [WordCount.objects.order_by().filter(groups)]


def _counted(rows: QuerySet[Model]) -> QuerySet[Any, Any]:
    # Counters do not tell how many other updates are missing, which is below what needs attention.
    lines = rows.annotate(
        kind=Value("count", output_field=CharField()), need=need_of(Q(lacks_critical=True), Q(pk__isnull=True))
    )
    needing, never = Q(need__gte=int(ATTENTION)), Q(patch_set=0)
    sums = {"all": None, "need": needing, "never": never}
    data = {name: Coalesce(Sum("machines", filter=narrowed), 0) for name, narrowed in sums.items()}
    found: QuerySet[Any, Any] = lines.values("kind").annotate(data=JSONObject(**data)).values_list("kind", "data")
    return found


def _views(found: list[tuple[str, Any]]) -> list[Mapping[str, Any]]:
    return [data for kind, data in found if kind == "view"]


def _place(view: Mapping[str, Any]) -> tuple[bool, str, int]:
    return view["shared"], view["name"].casefold(), view["id"]


def _view(data: Mapping[str, Any], user_id: int) -> ListedView:
    return ListedView(data["id"], data["name"], data["shared"], data["owner"] == user_id, data["address"])
