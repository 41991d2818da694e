"""Which machines a name means, and how to write a machine so that nothing else is meant."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connection

from db.arrays import array
from vms.models import VirtualMachine

# The machines that each text may mean by its last part: found by the words of the name, in any case of letters.
_BY_NAME = """
SELECT w.text, m.id, g.name, s.name, s.subscription_id::text
FROM unnest(%s::text[], %s::text[]) AS w(text, name)
JOIN vms_virtualmachine m ON {search} @@ plainto_tsquery('simple', regexp_replace(w.name, '[-_.]', ' ', 'g'))
    AND lower(m.name) = lower(w.name)
JOIN vms_resourcegroup g ON g.id = m.resource_group_id JOIN vms_subscription s ON s.id = g.subscription_id
ORDER BY m.id
"""
_NAME_SEARCH = "to_tsvector('simple'::regconfig, COALESCE(regexp_replace(m.name, '[-_.]', ' ', 'g'), ''))"


def vms_by_name(names: Collection[str]) -> dict[str, list[int]]:
    """The VMs that each of these means, in any case of letters (two queries).

    A text is a name, resource group/name, subscription/resource group/name (the subscription by name or id), or the
    resource id.
    """
    texts = [text for text in names if "\x00" not in text]
    found: dict[str, list[int]] = {text: [] for text in names}
    ids = {text: text.lower().rstrip("/") for text in texts if text.startswith("/")}
    pks = dict(VirtualMachine.objects.filter(arm_id__in=ids.values()).order_by().values_list("arm_id", "pk"))
    for text, arm_id in ids.items():
        found[text] = [pks[arm_id]] if arm_id in pks else []
    wanted = {text: [part.strip() for part in text.rsplit("/", 2)] for text in texts if text not in ids}
    if not wanted:
        return found
    with connection.cursor() as cursor:
        sql = _BY_NAME.replace("{search}", _NAME_SEARCH)
        cursor.execute(sql, [list(wanted), [parts[-1] for parts in wanted.values()]])
        rows = cursor.fetchall()
    for text, pk, group, subscription, subscription_id in rows:
        *places, _name = (part.lower() for part in wanted[text])
        is_meant = not places or (
            places[-1] == group.lower() and places[:-1] in ([], [subscription.lower()], [subscription_id])
        )
        if is_meant:
            found[text].append(pk)
    return found


def shortest_names(vm_ids: Collection[int]) -> list[str]:
    """How to write each of these VMs so that nothing else is meant: group/name, with its subscription, or its id."""
    rows = list(
        VirtualMachine.objects.filter(pk__any=array(vm_ids))
        .order_by("resource_group__name", "name", "pk")
        .values_list("pk", "arm_id", "name", "resource_group__name", "resource_group__subscription__name")
    )
    ways = {pk: (f"{group}/{name}", f"{sub}/{group}/{name}", arm_id) for pk, arm_id, name, group, sub in rows}
    meant = vms_by_name({text for texts in ways.values() for text in texts})
    return [next((text for text in texts if meant[text] == [pk]), texts[-1]) for pk, texts in ways.items()]
