"""Counters of words: how many VMs of a place have which words, exact at every commit (`vms.models.WordCount`)."""

from __future__ import annotations

from django.db import connection, transaction

from db.locks import Lock, hold, try_to_hold
from vms.models import COUNTED

_KEYS = ", ".join(COUNTED)

# What statements have added goes into the totals. Lines that are added meanwhile stay for the next time.
_FOLD = f"""
WITH lines AS (
    DELETE FROM vms_wordcount WHERE NOT is_total RETURNING {_KEYS}, machines
)
INSERT INTO vms_wordcount AS total ({_KEYS}, machines, is_total)
SELECT {_KEYS}, sum(machines), true FROM lines GROUP BY {_KEYS} HAVING sum(machines) <> 0 ORDER BY {_KEYS}
ON CONFLICT ({_KEYS}) WHERE is_total DO UPDATE SET machines = total.machines + EXCLUDED.machines
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
    return True


@transaction.atomic
def recount_words() -> None:
    """Count every VM anew. Writers of VMs wait meanwhile (about two seconds for a million VMs)."""
    hold(Lock.WORD_COUNTERS)
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE vms_virtualmachine IN SHARE MODE")
        cursor.execute("DELETE FROM vms_wordcount")
        cursor.execute(
            f"INSERT INTO vms_wordcount ({_KEYS}, machines, is_total) "  # noqa: S608 (ours)
            f"SELECT {_KEYS}, count(*), true FROM vms_virtualmachine WHERE gone_at IS NULL GROUP BY {_KEYS}"
        )
