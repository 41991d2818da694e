"""The words of a VM: product line, update status, hotpatch status and track, judged from what is recorded.

Assessments and the tick that follows the clock judge by the same object here, so that they cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection

from db.arrays import array
from patching.eligibility import CatalogIndex, Eligibility, EligibilityVerdict, judge_eligibility
from patching.releases import OFFERED_FROM, PACIFIC, Timetable, as_of, is_released, second_tuesday, timetable
from patching.status import ASSESSMENT_IS_VALID_FOR, judge_update_status
from patching.terms import (
    HotpatchStatus,
    HotpatchTrack,
    ImageReference,
    Platform,
    ProductLine,
    Release,
    ScaleSetOrchestration,
    UpdateStatus,
)
from patching.track import TrackVerdict, hotpatch_status, judge_track, judge_track_on
from updates.models import Release as ReleaseRow
from vms.models import Connection
from vms.selectors import build_of_image, image_catalog

# Raise it when a rule changes what a track is: every VM is judged again once after the upgrade.
RULES = 3


class Words(NamedTuple):
    """What lists show of a VM and filter by."""

    product_line: ProductLine | None
    update_status: UpdateStatus
    hotpatch_status: HotpatchStatus
    hotpatch_track: HotpatchTrack


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides where a VM stands. Equal VMs have equal standings, and are judged once."""

    eligibility: Eligibility
    is_hotpatch_enabled: bool
    installed_kbs: frozenset[str]
    is_list_complete: bool
    os_build: str
    is_reboot_pending: bool
    was_assessed: bool
    is_ready: bool = True  # False: the machine says that hotpatches do not work on it

    @property
    def is_hotpatch_on(self) -> bool:
        """Whether hotpatch is available here, and switched on."""
        return self.eligibility.verdict is EligibilityVerdict.ELIGIBLE and self.is_hotpatch_enabled


def judge_standing(releases: Iterable[Release], standing: Standing, moment: datetime) -> TrackVerdict:
    """The track of a VM with its facts, as of a moment."""
    return Judge(releases).track(standing, moment)


class Judge:
    """Judges many VMs by one catalogue; what is equal is asked of the rules once."""

    def __init__(self, releases: Iterable[Release]) -> None:
        self._releases = tuple(releases)
        self._tracks: dict[tuple[Standing, datetime], TrackVerdict] = {}
        self._timetables: dict[tuple[ProductLine, datetime], Timetable] = {}

    def track(self, standing: Standing, moment: datetime) -> TrackVerdict:
        """The track of this standing as of this moment."""
        key = (standing, moment)
        if (found := self._tracks.get(key)) is None:
            found = self._tracks[key] = self._judge(standing, moment)
        return found

    def _judge(self, standing: Standing, moment: datetime) -> TrackVerdict:
        facts: dict[str, Any] = {
            "is_hotpatch_on": standing.is_hotpatch_on,
            "installed_kbs": standing.installed_kbs,
            # A build that nobody has confirmed by an assessment says nothing yet about where the VM stands.
            "os_build": standing.os_build if standing.was_assessed else "",
            "is_list_complete": standing.is_list_complete and standing.was_assessed,
            "is_reboot_pending": standing.is_reboot_pending,
            "is_ready": standing.is_ready,
        }
        line = standing.eligibility.product_line
        if line is None:
            return judge_track(self._releases, line, as_of=moment, **facts)
        return judge_track_on(self.timetable(line, moment), **facts)

    def timetable(self, line: ProductLine, moment: datetime) -> Timetable:
        """What is known of a line at a moment, made once."""
        if (known := self._timetables.get((line, moment))) is None:
            known = self._timetables[line, moment] = timetable(self._releases, line, moment)
        return known

    def words(
        self,
        standing: Standing,
        *,
        moment: datetime,
        last_assessed_at: datetime | None,
        now: datetime,
        available_count: int,
    ) -> Words:
        """All words of a VM. `moment`: up to which releases count for it."""
        line = standing.eligibility.product_line
        return Words(
            product_line=line,
            update_status=judge_update_status(
                is_supported=line is not None,
                last_assessed_at=last_assessed_at,
                now=now,
                is_reboot_pending=standing.is_reboot_pending,
                available_count=available_count,
            ),
            hotpatch_status=hotpatch_status(
                standing.eligibility, is_enabled=standing.is_hotpatch_enabled, was_assessed=standing.was_assessed
            ),
            hotpatch_track=self.track(standing, moment).track,
        )


# --- what is recorded of a block of VMs --------------------------------------------------------------------------


class StoredWords(NamedTuple):
    """One VM: the words that its record shows, and those that it should show."""

    vm_id: int
    stored: Words
    judged: Words
    critical_and_security_count: int
    other_count: int
    is_reboot_pending: bool
    patch_set: int


# First what many VMs share, so that equal rows are judged once; KBs as the ids of their patches, which one index holds.
_READ = """
SELECT v.image_publisher, v.image_offer, v.image_sku, v.image_version, v.image_resource_id, v.os_edition,
    v.image_exact_version, v.scale_set_orchestration, v.connection_id, v.os_build, v.enable_hotpatching, coalesce(s.os_build, ''),
    coalesce(s.is_list_complete, false), v.is_reboot_pending, s.last_assessed_at IS NOT NULL,
    coalesce(s.is_ready_for_hotpatches, true),
    s.last_assessed_at < %(stale)s, v.critical_and_security_count + v.other_count > 0,
    array_to_string(ARRAY(SELECT i.patch_id FROM updates_installedpatch i WHERE i.vm_id = v.id ORDER BY 1), ','),
    v.product_line, v.update_status, v.hotpatch_status, v.hotpatch_track,
    v.id, v.critical_and_security_count, v.other_count, coalesce(s.patch_set_id, 0), v.patch_set
FROM vms_virtualmachine v LEFT JOIN updates_vmupdatestate s ON s.vm_id = v.id
WHERE v.id = ANY(%(ids)s::bigint[])
"""
_FACTS, _STORED = 19, 23


@dataclass(frozen=True, slots=True)
class Reading:
    """What every VM is judged by: the catalogue of releases and images, and the connections."""

    judge: Judge
    images: CatalogIndex
    connections: Mapping[int, Connection]
    kbs: Mapping[int, str]  # by patch
    now: datetime

    def differing(self, vm_ids: Collection[int], *, judged: dict[Any, Words]) -> list[StoredWords]:
        """Those of these VMs whose words are not what they should be. `judged`: what was judged so far."""
        with connection.cursor() as cursor:
            cursor.execute(_READ, {"ids": array(vm_ids), "stale": self.now - ASSESSMENT_IS_VALID_FOR})
            rows = cursor.fetchall()
        found = []
        for row in rows:
            facts, words = row[:_FACTS], row[_FACTS:_STORED]
            if (right := judged.get(facts)) is None:
                right = judged[facts] = self._judge(facts)
            vm_id, urgent, other, lacks, shown = row[_STORED:]
            if (right.product_line or "", *right[1:], lacks) != (*words, shown):
                stored = Words(
                    ProductLine(words[0]) if words[0] else None,
                    UpdateStatus(words[1]),
                    HotpatchStatus(words[2]),
                    HotpatchTrack(words[3]),
                )
                found.append(StoredWords(vm_id, stored, right, urgent, other, facts[13], lacks))
        return found

    def _judge(self, facts: tuple[Any, ...]) -> Words:
        image, (exact_version, orchestration, connection_id, reported) = ImageReference(*facts[:6]), facts[6:10]
        is_enabled, os_build, is_complete, is_pending, was_assessed, is_ready, is_stale, has_updates, patches = facts[
            10:
        ]
        row = self.connections[connection_id]
        standing = Standing(
            eligibility=judge_eligibility(
                image,
                self.images,
                Platform(row.platform),
                scale_set_orchestration=ScaleSetOrchestration(orchestration),
                os_build=os_build or build_of_image(exact_version, image.version, reported),
            ),
            is_hotpatch_enabled=is_enabled,
            installed_kbs=frozenset(self.kbs[int(pk)] for pk in patches.split(",")) if patches else frozenset(),
            is_list_complete=is_complete,
            os_build=os_build,
            is_reboot_pending=is_pending,
            was_assessed=was_assessed,
            is_ready=is_ready,
        )
        age = ASSESSMENT_IS_VALID_FOR + timedelta(days=1) if is_stale else timedelta()
        return self.judge.words(
            standing,
            moment=as_of(row.catalogue_date, self.now),
            last_assessed_at=self.now - age if was_assessed else None,
            now=self.now,
            available_count=int(has_updates),
        )


def read_for_judging(now: datetime) -> Reading:
    """Everything that VMs are judged by, in four queries."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, kb_number FROM updates_patch")
        kbs = dict(cursor.fetchall())
    return Reading(
        judge=Judge(ReleaseRow.objects.order_by("pk").facts()),
        images=image_catalog(),
        connections=Connection.objects.in_bulk(),
        kbs=kbs,
        now=now,
    )


# --- when they have to be judged again ---------------------------------------------------------------------------


def last_patch_tuesday(moment: datetime) -> datetime:
    """The newest second Tuesday, 10:00 Pacific time, that has come by this moment."""
    day = moment.astimezone(PACIFIC).date()
    for month in (day, day.replace(day=1) - timedelta(days=1)):
        found = datetime.combine(second_tuesday(month), OFFERED_FROM, PACIFIC)
        if found <= moment:
            break
    return found


def digests(now: datetime) -> dict[str, str]:
    """By connection and product line, what the words of its VMs depend on beside their own facts (three queries).

    A digest changes when a release or a Patch Tuesday comes, when the catalogues of releases or images change, and when
    the connection does. Nothing else but its own facts and its age changes the words of a VM.
    """
    releases: dict[str, list[tuple[Release, str]]] = {line.value: [] for line in ProductLine}
    for row in ReleaseRow.objects.order_by("pk"):
        releases[row.product_line].append((row.facts, repr(row.facts)))
    images = sorted(map(repr, image_catalog().values()))
    states: dict[tuple[str, datetime], str] = {}
    found = {}
    for site in Connection.objects.order_by("pk"):
        moment = as_of(site.catalogue_date, now)
        for line in ("", *ProductLine):
            if (state := states.get((line, moment))) is None:
                out = [(text, is_released(release, moment)) for release, text in releases.get(line, ())]
                state = states[line, moment] = repr((RULES, line, last_patch_tuesday(moment), out, images))
            found[f"{site.pk}:{line}"] = hashlib.sha256(f"{site.platform} {state}".encode()).hexdigest()[:16]
    return found
