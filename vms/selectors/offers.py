"""What the filters of the list offer to one reader."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import EmptyResultSet
from django.db import connection

from db.arrays import array
from db.bounded import fetch_bounded
from vms.models import Grants, VirtualMachine
from vms.regions import region_name, regions


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What the list can be filtered by beyond fixed words: (id, name) pairs."""

    connections: tuple[tuple[str, str], ...]
    subscriptions: tuple[tuple[str, str], ...]


# What is offered: the connections and subscriptions of what the grants lead to.
_OFFERED = """
WITH places AS MATERIALIZED (
    SELECT ARRAY(
        SELECT id FROM vms_resourcegroup
        WHERE id = ANY(%(groups)s::bigint[]) OR subscription_id = ANY(%(subscriptions)s::bigint[])
    ) AS groups
)
SELECT true, c.id, c.name FROM vms_connection c
WHERE %(everything)s OR EXISTS (
    SELECT FROM vms_virtualmachine v
    WHERE v.connection_id = c.id AND v.resource_group_id = ANY((SELECT groups FROM places)::bigint[])
) OR EXISTS (SELECT FROM vms_virtualmachine v WHERE v.connection_id = c.id AND v.id = ANY(%(vms)s::bigint[]))
UNION ALL
SELECT false, id, name FROM vms_subscription
WHERE %(everything)s OR id = ANY(%(subscriptions)s::bigint[]) OR id IN (
    SELECT subscription_id FROM vms_resourcegroup
    WHERE id = ANY(%(groups)s::bigint[])
    OR id IN (SELECT resource_group_id FROM vms_virtualmachine WHERE id = ANY(%(vms)s::bigint[]))
)
"""


def filter_options(grants: Grants) -> FilterOptions:
    """The connections and subscriptions that this person may choose from, in one query."""
    if not grants.rows:
        return FilterOptions((), ())
    places: dict[str, str | bool] = {
        "everything": grants.are_of_everything,
        "subscriptions": array(grants.subscription_ids),
        "groups": array(grants.group_ids),
        "vms": array(grants.vm_ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(_OFFERED, places)
        rows = sorted(cursor.fetchall(), key=lambda row: (row[2].lower(), row[1]))
    return FilterOptions(
        connections=tuple((str(pk), name) for is_connection, pk, name in rows if is_connection),
        subscriptions=tuple((str(pk), name) for is_connection, pk, name in rows if not is_connection),
    )


# --- what contains what was typed --------------------------------------------------------------------------------

MAX_OFFERS = 10
LOOKED_AT = 5_000  # machines whose tags are looked at
OFFERING = ("resource_group", "location", "tag")

# One of each name; what is called so first.
_GROUPS = """
SELECT min(name) FROM vms_resourcegroup
WHERE (%(everything)s OR id = ANY(%(groups)s::bigint[]) OR subscription_id = ANY(%(subscriptions)s::bigint[])
       OR id IN (SELECT resource_group_id FROM vms_virtualmachine WHERE id = ANY(%(vms)s::bigint[])))
  AND position(lower(%(typed)s) IN lower(name)) > 0
GROUP BY lower(name) ORDER BY lower(name) <> lower(%(typed)s), lower(name) LIMIT %(most)s
"""
_TAGS = """
SELECT DISTINCT told.tag, lower(told.tag) <> lower(%s), length(told.tag) FROM ({machines}) machine(tags),
    jsonb_each_text(CASE jsonb_typeof(machine.tags) WHEN 'object' THEN machine.tags ELSE '{{}}' END) each(name, value),
    LATERAL (VALUES (each.name), (each.name || coalesce('=' || nullif(each.value, ''), ''))) told(tag)
WHERE position(lower(%s) IN lower(told.tag)) > 0 ORDER BY 2, 3, 1 LIMIT %s
"""


def offers_like(grants: Grants, name: str, typed: str) -> tuple[str, ...]:
    """Up to ten values of this filter (of `OFFERING`) that contain what was typed, an equal one first; one query at most.

    Groups and tags are those of what these grants lead to; of tags those of the first machines found. Raises
    `db.bounded.ListTooSlowError`.
    """
    typed = typed.strip().replace("\x00", "")
    if not typed or not grants.rows:
        return ()
    if name == "location":
        return _regions_like(typed)
    return _groups_like(grants, typed) if name == "resource_group" else _tags_like(grants, typed)


def _groups_like(grants: Grants, typed: str) -> tuple[str, ...]:
    asked: dict[str, str | int | bool] = {
        "everything": grants.are_of_everything,
        "subscriptions": array(grants.subscription_ids),
        "groups": array(grants.group_ids),
        "vms": array(grants.vm_ids),
        "typed": typed,
        "most": MAX_OFFERS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_GROUPS, asked)
        return tuple(name for (name,) in cursor.fetchall())


def _tags_like(grants: Grants, typed: str) -> tuple[str, ...]:
    machines = VirtualMachine.objects.granted_by(grants).filter(gone_at=None).order_by().values("tags")[:LOOKED_AT]
    try:
        sql, parameters = machines.query.sql_with_params()
    except EmptyResultSet:
        return ()
    rows = fetch_bounded(_TAGS.format(machines=sql), [typed, *parameters, typed, MAX_OFFERS])
    return tuple(row[0] for row in rows)


def _regions_like(typed: str) -> tuple[str, ...]:
    asked = region_name(typed)
    found = [name for name, region in regions().items() if asked in name or asked in region_name(region.display_name)]
    return tuple(sorted(found, key=lambda name: (name != asked, name))[:MAX_OFFERS])
