"""Counters of words: how many VMs of a place have which words, exact at every commit (`vms.models.WordCount`)."""

from __future__ import annotations

from django.db import connection, transaction

from db.locks import Lock, hold, try_to_hold
from vms.models import COUNTED, COUNTED_IN_FLEET, COUNTED_OF_VM

_KEYS = ", ".join(COUNTED)
_FLEET = ", ".join(COUNTED_IN_FLEET)

# What statements have added goes into the totals. Lines that are added meanwhile stay for the next time.
_FOLD = f"""
WITH lines AS (
    DELETE FROM vms_wordcount WHERE NOT is_total RETURNING {_KEYS}, machines
), of_places AS (
    INSERT INTO vms_wordcount AS total ({_KEYS}, machines, is_total)
    SELECT {_KEYS}, sum(machines), true FROM lines GROUP BY {_KEYS} HAVING sum(machines) <> 0 ORDER BY {_KEYS}
    ON CONFLICT ({_KEYS}) WHERE is_total DO UPDATE SET machines = total.machines + EXCLUDED.machines
)
INSERT INTO vms_fleetcount AS total ({_FLEET}, machines)
SELECT {_FLEET}, sum(machines) FROM lines GROUP BY {_FLEET} HAVING sum(machines) <> 0 ORDER BY {_FLEET}
ON CONFLICT ({_FLEET}) DO UPDATE SET machines = total.machines + EXCLUDED.machines
"""  # noqa: S608 (ours)
_COUNT_PLACES = f"""
INSERT INTO vms_wordcount ({_KEYS}, machines, is_total)
SELECT {_KEYS}, count(*), true FROM (SELECT {COUNTED_OF_VM} FROM vms_virtualmachine WHERE gone_at IS NULL) machine GROUP BY {_KEYS}
"""  # noqa: S608 (ours)
_COUNT_FLEET = f"""
INSERT INTO vms_fleetcount ({_FLEET}, machines)
SELECT {_FLEET}, sum(machines) FROM vms_wordcount GROUP BY {_FLEET} HAVING sum(machines) <> 0
"""  # noqa: S608 (ours)


def fold_counters() -> bool:
    """Fold the lines that were added into the totals; False if there were none, or another worker is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM vms_wordcount WHERE NOT is_total)")
        if not cursor.fetchone()[0]:
            return False
    with transaction.atomic(), connection.cursor() as cursor:
        if not try_to_hold(Lock.WORD_COUNTERS):
            return False
        cursor.execute(_FOLD)
        cursor.execute("DELETE FROM vms_wordcount WHERE is_total AND machines = 0")
        cursor.execute("DELETE FROM vms_fleetcount WHERE machines = 0")
    return True


@transaction.atomic
def recount_words() -> None:
    """Count every VM anew. Writers of VMs wait meanwhile (about two seconds for a million VMs)."""
    hold(Lock.WORD_COUNTERS)
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE vms_virtualmachine IN SHARE MODE")
        cursor.execute("DELETE FROM vms_wordcount")
        cursor.execute("DELETE FROM vms_fleetcount")
        cursor.execute(_COUNT_PLACES)
        cursor.execute(_COUNT_FLEET)
