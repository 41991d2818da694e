"""How many machines a change of the catalogue moves to another track."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import connection

from connectors.registry import catalogue_day
from patching.eligibility import line_of_build
from patching.releases import as_of
from patching.terms import HotpatchStatus, Release
from patching.track import judge_track


def count_track_changes(before: Collection[Release], after: Collection[Release], *, now: datetime) -> int:
    """How many machines with hotpatch on have another track by the catalogue `after` than by the one `before`.

    One query: machines that are alike in what decides their track are judged once.
    """
    if tuple(before) == tuple(after):
        return 0
    found = 0
    for os_build, day, kb_numbers, is_complete, is_pending, is_ready, count in _alike():
        line, installed_kbs = line_of_build(os_build), frozenset(kb_numbers.split())
        tracks = [
            judge_track(
                releases,
                line,
                is_hotpatch_on=True,
                installed_kbs=installed_kbs,
                os_build=os_build,
                is_list_complete=is_complete,
                is_reboot_pending=is_pending,
                is_ready=is_ready,
                as_of=as_of(catalogue_day(day), now),
            ).track
            for releases in (before, after)
        ]
        found += count if tracks[0] is not tracks[1] else 0
    return found


def _alike() -> list[tuple[str, str | None, str, bool, bool, bool, int]]:
    """The machines with hotpatch on, those that are alike counted together.

    A row: build, catalogue date, KBs, whether their list is complete, whether a reboot is pending, whether the machine is
    ready for hotpatches, how many machines.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT m.os_build, c.config ->> 'catalogue_date', m.kb_numbers, m.is_complete, m.is_reboot_pending, m.is_ready, count(*)
            FROM (
                SELECT v.connection_id, coalesce(s.os_build, '') AS os_build, v.is_reboot_pending,
                       coalesce(s.is_list_complete, false) AS is_complete,
                       coalesce(s.is_ready_for_hotpatches, true) AS is_ready,
                       coalesce(string_agg(p.kb_number, ' ' ORDER BY p.kb_number), '') AS kb_numbers
                FROM vms_virtualmachine v
                LEFT JOIN updates_vmupdatestate s ON s.vm_id = v.id
                LEFT JOIN updates_installedpatch i ON i.vm_id = v.id
                LEFT JOIN updates_patch p ON p.id = i.patch_id AND p.kb_number <> ''
                WHERE v.hotpatch_status = %s
                GROUP BY v.id, s.vm_id
            ) m
            LEFT JOIN vms_connection c ON c.id = m.connection_id
            GROUP BY 1, 2, 3, 4, 5, 6
            """,
            [HotpatchStatus.ENABLED.value],
        )
        return list(cursor.fetchall())
