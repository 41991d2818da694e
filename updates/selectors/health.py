"""What is not as it should be in the data, found in bounded queries and explained (`manage.py doctor`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, Min
from django.utils import timezone

from patching.terms import OperationKind, OperationState
from updates.models import Freeze, MaintenanceConfiguration
from updates.selectors.automation import vms_that_wait_for_a_clock, vms_with_stale_patchers
from updates.selectors.decisions import find_news
from updates.selectors.freezes import read_scope
from updates.selectors.maintenance import troubles_of
from vms.models import COUNTED, COUNTED_IN_FLEET, COUNTED_OF_VM, Connection

SHOWN, MOST = 5, 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of trouble: how many rows have it (counted up to 1,000), a few of them, what it means and what to do."""

    code: str
    count: int
    examples: tuple[str, ...]
    meaning: str
    advice: str


# Each query gives one text per row that is in trouble.
_CHECKS: tuple[tuple[str, str, str, str], ...] = (
    (
        "operation_overdue",
        """
        SELECT o.id::text FROM updates_operation o
        LEFT JOIN vms_connection c ON c.id = o.connection_id
        WHERE o.next_step_at < clock_timestamp() - interval '10 minutes'
          AND (o.state <> %(queued)s OR c.paused_until IS NULL OR c.paused_until <= clock_timestamp())
        """,
        "Operations have been due for more than ten minutes and no worker has taken them.",
        "Is a worker running? A connection that is full or out of starts per minute keeps its queue waiting, too.",
    ),
    (
        "operation_past_deadline",
        """
        SELECT id::text FROM updates_operation
        WHERE next_step_at IS NOT NULL AND deadline_at < clock_timestamp() - interval '30 minutes'
        """,
        "Operations are still open half an hour after their deadline.",
        "Workers end them as connector.silent when they next look; see operation_overdue.",
    ),
    (
        "machine_awaits_assessment",
        """
        SELECT s.vm_id::text FROM updates_vmupdatestate s
        WHERE s.is_awaiting_assessment AND NOT EXISTS (
            SELECT 1 FROM updates_operation o
            WHERE o.vm_id = s.vm_id AND o.kind = %(assessment)s AND o.next_step_at IS NOT NULL)
        """,
        "Machines take no installation until an assessment has answered, and none is queued.",
        "Press “Assess now” on them.",
    ),
    (
        "summary_differs",
        """
        SELECT v.name FROM updates_vmupdatestate s
        JOIN updates_patchset p ON p.id = s.patch_set_id
        JOIN vms_virtualmachine v ON v.id = s.vm_id
        WHERE (v.critical_and_security_count, v.other_count, v.patch_set)
            IS DISTINCT FROM (p.critical_and_security_count, p.other_count, p.id)
        """,
        "What lists show differs from what the last assessment found.",
        "Assess these machines again; please report it, since it should never happen.",
    ),
    (
        "counters_differ",
        """
        WITH counted AS (
            SELECT KEYS, sum(machines) AS machines FROM vms_wordcount GROUP BY KEYS HAVING sum(machines) <> 0
        ), machines AS (
            SELECT KEYS, count(*) AS machines FROM (SELECT OF_VM FROM vms_virtualmachine WHERE gone_at IS NULL) machine GROUP BY KEYS
        )
        SELECT concat_ws(' ', g.name, hotpatch_track, update_status, counted.machines, '/', machines.machines)
        FROM counted FULL JOIN machines USING (KEYS)
        LEFT JOIN vms_resourcegroup g ON g.id = resource_group_id
        WHERE counted.machines IS DISTINCT FROM machines.machines
        UNION ALL
        SELECT concat_ws(' ', hotpatch_track, update_status, fleet.machines, '/', places.machines)
        FROM (SELECT FLEET, sum(machines) AS machines FROM vms_wordcount WHERE is_total GROUP BY FLEET) places
        FULL JOIN vms_fleetcount fleet USING (FLEET)
        WHERE coalesce(places.machines, 0) <> coalesce(fleet.machines, 0)
        """.replace("KEYS", ", ".join(COUNTED))
        .replace("OF_VM", COUNTED_OF_VM)
        .replace("FLEET", ", ".join(COUNTED_IN_FLEET)),
        "Counters say another number of machines than there are.",
        "Run “manage.py refresh_words --recount”; please report it, since it should never happen.",
    ),
    (
        "assessed_without_patches",
        "SELECT vm_id::text FROM updates_vmupdatestate WHERE last_assessed_at IS NOT NULL AND patch_set_id IS NULL",
        "Machines were assessed, but what they lack is not recorded.",
        "Assess them again.",
    ),
    (
        "release_type_differs",
        """
        SELECT r.product_line || ' KB' || r.kb_number FROM updates_release r
        JOIN updates_patch p ON p.kb_number = r.kb_number AND p.product_line IN (r.product_line, '')
        WHERE r.kb_number <> '' AND p.release_type IS DISTINCT FROM r.type
        """,
        "An update is not what its release says it is: installations may be guarded wrongly.",
        "Import the releases that come with the portal: manage.py seed_catalogue --keep-corrections.",
    ),
    (
        "bulk_request_waits",
        """
        SELECT id::text FROM updates_bulkrequest
        WHERE NOT is_handed_out AND created_at < clock_timestamp() - interval '10 minutes'
        """,
        "Bulk requests have not been handed out for more than ten minutes.",
        "Is the bulk worker running?",
    ),
    (
        "bulk_answer_without_machine",
        """
        SELECT o.id::text FROM updates_bulkoutcome o
        WHERE NOT EXISTS (SELECT 1 FROM vms_virtualmachine v WHERE v.id = o.vm_id)
           OR NOT EXISTS (SELECT 1 FROM updates_bulkrequest r WHERE r.id = o.request_id)
           OR (o.operation_id IS NOT NULL AND NOT EXISTS (
               SELECT 1 FROM updates_operation p WHERE p.id = o.operation_id))
        """,
        "Answers of bulk requests refer to machines, requests or operations that are no longer there.",
        "No page shows them. They come of a machine that was removed while it was asked; they can stay.",
    ),
)

_VALUES = {"queued": OperationState.QUEUED.value, "assessment": OperationKind.ASSESSMENT.value}


def find_trouble() -> Iterator[Finding]:
    """Every kind of trouble that is there."""
    for code, query, meaning, advice in _CHECKS:
        with connection.cursor() as cursor:
            cursor.execute(f"{query} LIMIT {MOST}", _VALUES)
            rows = [str(row[0]) for row in cursor.fetchall()]
        if rows:
            yield Finding(code, len(rows), tuple(rows[:SHOWN]), meaning, advice)
    troubled = [(row.name, row.trouble) for row in Connection.objects.order_by("name")]
    unusable = [f"{name}: {trouble}" for name, trouble in troubled if trouble is not None]
    if unusable:
        yield Finding(
            "connection_unusable",
            len(unusable),
            tuple(unusable[:SHOWN]),
            "Nothing can be sent to the machines behind these connections: what is asked for waits, then fails.",
            "Open the connection's page and correct it, or run what the sentence names.",
        )
    yield from _without_a_clock()
    yield from _unreadable_configurations()
    yield from _unreadable_freezes()
    yield from _news()
    names = list(vms_with_stale_patchers().order_by().values_list("name", flat=True)[:MOST])
    if names:
        yield Finding(
            "patcher_differs",
            len(names),
            tuple(names[:SHOWN]),
            "What lists show of who patches a machine is not what the rule says now.",
            "The scheduler corrects it within ten minutes. If it stays: is a worker running, and beat?",
        )


def _news() -> Iterator[Finding]:
    """What nobody but a person can put right: an old catalogue, and updates that wait for a decision."""
    news = find_news(timezone.now())
    if news["ages"]:
        yield Finding(
            "catalogue_is_old",
            len(news["ages"]),
            tuple(
                f"{line} known up to {(until or 'never')[:7]}, {len(months)} monthly releases are not recorded"
                + (f" (catalogue as of {day})" if day else "")
                for line, until, months, day in news["ages"][:SHOWN]
            ),
            "Months are out by the calendar and not recorded: where machines stand is told as far as known.",
            "Import newer releases: in the admin site, or manage.py import_releases.",
        )
    if news["waiting"]:
        yield Finding(
            "decision_waits",
            len(news["waiting"]),
            tuple(f"KB{row[1]} ({row[0]}): {row[5]} machines" for row in news["waiting"][:SHOWN]),
            "Updates are held back on machines until a person says what they are.",
            "Decide on the page “Decisions” (/decisions/), once for all machines.",
        )


def _without_a_clock() -> Iterator[Finding]:
    """Regions in use whose clock nobody knows, with the machines that wait in each."""
    waiting = vms_that_wait_for_a_clock().order_by()
    places = waiting.values_list("location", "time_zone").annotate(machines=Count("pk"), first=Min("name"))
    rows = list(places.order_by("-machines", "location", "time_zone")[:MOST])
    if rows:
        yield Finding(
            "clock_unknown",
            min(MOST, sum(count for *_place, count, _name in rows)),
            tuple(
                f"{location or 'no region'}{f', time zone {zone}' if zone else ''}: {name}"
                + (f" and {count - 1} more" if count > 1 else "")
                for location, zone, count, name in rows[:SHOWN]
            ),
            "Nobody knows the clock of these regions, so neither off-peak hours nor windows on each machine's own clock ever come "
            "for their machines: they are not patched.",
            "Set the time zone of the machines, or a region that vms/data/regions.json has.",
        )


def _unreadable_configurations() -> Iterator[Finding]:
    """Maintenance configurations with a kept value that cannot be read."""
    rows = [(row.name, troubles_of(row)) for row in MaintenanceConfiguration.objects.order_by("name")]
    found = [
        f"{name}: {', '.join(f'{one.label}: {one.words}' for one in troubles)}" for name, troubles in rows if troubles
    ]
    if found:
        yield Finding(
            "configuration_unreadable",
            len(found),
            tuple(found[:SHOWN]),
            "Maintenance configurations have values that cannot be read: no window of theirs opens.",
            "Open the configuration's page, correct it and save it.",
        )


def _unreadable_freezes() -> Iterator[Finding]:
    """Freezes that hold every machine because nobody can read which they mean, and exceptions that let none through."""
    alive = Freeze.objects.filter(ended_at=None, ends_at__gt=timezone.now()).prefetch_related("exceptions")
    found = [
        f"{name}: {problem}"
        for row in alive
        for name, scope in [(row.name, row.scope), *((one.reason, one.scope) for one in row.exceptions.all())]
        if (problem := read_scope(scope)[1])
    ]
    if found:
        yield Finding(
            "freeze_unreadable",
            len(found),
            tuple(found[:SHOWN]),
            "Freezes hold every machine, or exceptions let none through: which machines they mean cannot be read.",
            "Open the freeze's page, correct it and save it, or end it.",
        )
