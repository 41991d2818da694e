"""What the filters of the list offer to one reader."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from db.arrays import array
from vms.models import Grants


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
