"""Recording what assessments found: patch sets, installed patches, update states, summaries, verification."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from uuid import UUID

import pgtrigger
from django.db import connection, transaction

from connectors.protocol import AssessmentResult, AssessmentSource, Capability
from db.arrays import rowset
from db.locks import Lock, hold
from patching import terms
from patching.identity import is_newer, is_same_update, newest_of_each
from patching.outcome import is_verifiable
from patching.terms import CRITICAL_AND_SECURITY, InstalledUpdate
from updates.models import Patch, PatchSet, PatchSetMember, Release
from updates.selectors.catalogue import LoadedCatalogue
from updates.selectors.vm_facts import VmFacts
from updates.selectors.words import Judge, Standing
from vms.services.settings import record_settings
from vms.services.summaries import VmSummary, record_summaries


@dataclass(frozen=True)
class AssessmentFound:
    """What one assessment found on one VM.

    Where an installation ended with it: `installation_id`, and what that run reported as installed.
    """

    facts: VmFacts
    result: AssessmentResult
    installation_id: UUID | None = None
    reported: tuple[InstalledUpdate, ...] = ()

    @property
    def os_build(self) -> str:
        """The build after the assessment: what it said, else what was known."""
        return self.result.os_build or self.facts.ref.os_build

    @property
    def is_list_complete(self) -> bool:
        """Whether it told everything that is installed."""
        return self.result.installed is not None and Capability.INSTALLED_UPDATES in self.facts.capabilities

    @cached_property
    def installed(self) -> tuple[InstalledUpdate, ...]:
        """What is installed after the assessment: all that it said where its list is complete.

        Else what was known, what its run reported and what it said, without what it offers again: that is not installed,
        whoever reported it.
        """
        told, known = self.result.installed, self.facts.ref.installed
        if told is not None and self.is_list_complete:
            return told
        reported = () if Capability.INSTALLED_UPDATES in self.facts.capabilities else self.reported
        if not (told or known or reported):
            return ()
        offers = {patch.key: patch for patch in self.result.available if is_verifiable(patch)}
        merged = {update.patch.key: update for update in (*known, *reported, *(told or ()))}
        return tuple(
            update
            for key, update in merged.items()
            if key not in offers or not is_same_update(update.patch, offers[key])
        )

    def at(self, now: datetime) -> datetime:
        """When it was made. None was made in the future."""
        return now if self.result.assessed_at is None else min(self.result.assessed_at, now)


@transaction.atomic
def record_assessments(
    *, found: Sequence[AssessmentFound], catalogue: LoadedCatalogue, now: datetime
) -> list[AssessmentFound]:
    """Write what successful assessments found, and return those that were taken over.

    One that was made elsewhere and is older than what is known of its VM changes nothing. A fixed number of statements;
    unchanged rows are not rewritten.
    """
    if not found:
        return []
    # Equal VMs share the very same objects: hundreds of VMs mean some tens of patches.
    offers = {id(item.result.available): item.result.available for item in found}
    seen = {id(patch): patch for available in offers.values() for patch in available}
    for item in found:
        for update in (*item.facts.ref.installed, *item.installed):
            seen[id(update.patch)] = update.patch
    pks = ensure_patches(seen.values())
    sets = _ensure_patch_sets([item.result.available for item in found], pks)
    states = [
        (
            item.result.assessed_at is not None,
            (
                item.facts.ref.vm_id,
                sets[_keys(item.result.available)],
                item.os_build,
                item.is_list_complete,
                item.result.is_ready_for_hotpatches,
                item.at(now),
                item.result.source.value,
            ),
        )
        for item in found
    ]
    written = _record_states([state for is_dated, state in states if not is_dated])
    written |= _record_states([state for is_dated, state in states if is_dated], is_dated=True)
    if len(written) < len(found):
        found = [item for item in found if item.facts.ref.vm_id in written]
    _record_installed(found, pks)
    urgent = {key: sum(p.classification in CRITICAL_AND_SECURITY for p in offer) for key, offer in offers.items()}
    judge = Judge(catalogue.facts.releases)
    record_summaries(
        summaries=[
            _summary(item, urgent[id(item.result.available)], sets[_keys(item.result.available)], judge, now)
            for item in found
        ]
    )
    record_settings(
        reported={
            item.facts.ref.vm_id: item.result.settings
            for item in found
            if item.result.settings is not None and item.result.settings != item.facts.ref.settings
        }
    )
    return list(found)


def record_reports(*, reports: Sequence[AssessmentFound]) -> None:
    """Keep what runs reported as installed on VMs whose connector lists no installed updates; nothing that is listed moves."""
    reports = [item for item in reports if Capability.INSTALLED_UPDATES not in item.facts.capabilities]
    pks = ensure_patches(update.patch for item in reports for update in item.reported)
    _insert_installed(
        [
            (
                item.facts.ref.vm_id,
                pks[update.patch.key],
                update.patch.version,
                update.installed_on,
                item.installation_id,
            )
            for item in reports
            for update in item.reported
        ]
    )


def record_failures(*, errors: Mapping[int, str]) -> None:
    """Write why the last assessment of these VMs failed; what was known before stays."""
    if not errors:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO updates_vmupdatestate (vm_id, os_build, error_code, is_awaiting_assessment)
            SELECT r.vm_id, '', r.error_code, false
            FROM unnest(%s::bigint[], %s::text[]) AS r(vm_id, error_code) ORDER BY r.vm_id
            ON CONFLICT (vm_id) DO UPDATE SET error_code = EXCLUDED.error_code
            WHERE updates_vmupdatestate.error_code IS DISTINCT FROM EXCLUDED.error_code
            """,
            [list(errors), list(errors.values())],
        )


def record_silence(*, vm_ids: Iterable[int]) -> None:
    """Nobody knows what is installed on these VMs: they take no installation until an assessment has answered."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO updates_vmupdatestate (vm_id, os_build, error_code, is_awaiting_assessment)
            SELECT r.vm_id, '', '', true FROM unnest(%s::bigint[]) AS r(vm_id) ORDER BY r.vm_id
            ON CONFLICT (vm_id) DO UPDATE SET is_awaiting_assessment = true
            """,
            [sorted(vm_ids)],
        )


# --- patches and patch sets --------------------------------------------------------------------------------------


def ensure_patches(patches: Iterable[terms.Patch]) -> dict[str, int]:
    """Make sure that every patch is in the catalogue; returns primary keys by catalogue key.

    A patch that is there keeps its row. A newer sighting replaces title, version, update id and date together; an older
    one changes nothing. Where nothing is new this is one read.
    """
    by_key = newest_of_each(patches)
    rows = _patch_rows(by_key)
    if by_key.keys() <= rows.keys() and not _moved(rows, by_key):
        return {key: row.pk for key, row in rows.items()}
    hold(Lock.NEW_PATCHES)
    rows = _patch_rows(by_key)
    missing = [by_key[key] for key in sorted(by_key.keys() - rows.keys())]
    if missing:
        types = _recorded_types(missing)
        Patch.objects.bulk_create(
            [_row(patch, types.get((patch.product_line, patch.kb_number), "")) for patch in missing],
            ignore_conflicts=True,
        )
        rows = _patch_rows(by_key)
    if moved := _moved(rows, by_key):
        for row in moved:
            _follow(row, by_key[row.key])
        # What machines see of an update is no correction of the catalogue: nothing is kept of it.
        with pgtrigger.ignore("updates.Patch:corrected_update"):
            Patch.objects.bulk_update(moved, ["title", "version", "update_id", "published_on"])
    return {key: row.pk for key, row in rows.items()}


def _patch_rows(keys: Iterable[str]) -> dict[str, Patch]:
    return {row.key: row for row in Patch.objects.filter(key__in=list(keys))}


def _moved(rows: Mapping[str, Patch], seen: Mapping[str, terms.Patch]) -> list[Patch]:
    """The rows of which a newer sighting is there."""
    return [row for key, row in sorted(rows.items()) if is_newer(seen[key], row.facts)]


def _follow(row: Patch, seen: terms.Patch) -> None:
    """Let a row say what the newer sighting says. The day of a recorded release stays its day where none is told."""
    row.title, row.version, row.update_id = seen.title[:300], seen.version, seen.update_id
    if seen.published_on or not row.release_type:
        row.published_on = seen.published_on


def _recorded_types(patches: Iterable[terms.Patch]) -> dict[tuple[str | None, str], str]:
    """The release types of KBs that are recorded, by product line and, for updates of every line, by the KB alone."""
    kb_numbers = {patch.kb_number for patch in patches} - {""}
    rows = Release.objects.filter(kb_number__in=kb_numbers).values_list("product_line", "kb_number", "type")
    found: dict[tuple[str | None, str], str] = {}
    for line, kb_number, kind in rows:
        found[line, kb_number] = found[None, kb_number] = kind
    return found


def _row(patch: terms.Patch, recorded_type: str) -> Patch:
    return Patch(
        product_line=patch.product_line or "",
        kb_number=patch.kb_number,
        update_id=patch.update_id,
        is_known_by_id=patch.is_known_by_id,
        title=patch.title[:300],
        classification=patch.classification.value,
        reboot_behavior=patch.reboot_behavior.value,
        version=patch.version,
        published_on=patch.published_on,
        release_type=patch.release_type or recorded_type,
        evidence="reported by an assessment",
    )


def _keys(available: tuple[terms.Patch, ...]) -> tuple[str, ...]:
    return tuple(sorted({patch.key for patch in available}))


def _ensure_patch_sets(found: Iterable[tuple[terms.Patch, ...]], pks: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    """The patch set of each distinct combination of catalogue keys, made where it is new."""
    distinct: dict[tuple[str, ...], tuple[terms.Patch, ...]] = {}
    for available in {id(item): item for item in found}.values():  # equal VMs share the very same tuple
        distinct.setdefault(_keys(available), available)
    digests = {hashlib.sha256("\n".join(keys).encode()).digest(): keys for keys in sorted(distinct)}
    known = _known_sets(digests)
    new = [digest for digest in sorted(digests) if digest not in known]
    if new:
        PatchSet.objects.bulk_create(
            [_patch_set(digest, distinct[digests[digest]]) for digest in new], ignore_conflicts=True
        )
        known = _known_sets(digests)
        PatchSetMember.objects.bulk_create(
            [
                PatchSetMember(patch_set_id=known[digest], patch_id=pks[key])
                for digest in new
                for key in digests[digest]
            ],
            ignore_conflicts=True,
        )
    return {keys: known[digest] for digest, keys in digests.items()}


def _known_sets(digests: Iterable[bytes]) -> dict[bytes, int]:
    rows = PatchSet.objects.filter(digest__in=list(digests)).values_list("digest", "pk")
    return {bytes(digest): pk for digest, pk in rows}


def _patch_set(digest: bytes, available: tuple[terms.Patch, ...]) -> PatchSet:
    urgent = sum(patch.classification in CRITICAL_AND_SECURITY for patch in available)
    return PatchSet(digest=digest, critical_and_security_count=urgent, other_count=len(available) - urgent)


# --- what a VM has -----------------------------------------------------------------------------------------------


_STATE = {
    "vm_id": "bigint",
    "patch_set_id": "bigint",
    "os_build": "text",
    "is_list_complete": "boolean",
    "is_ready": "boolean",
    "at": "timestamptz",
    "source": "text",
}


def _record_states(
    rows: Sequence[tuple[int, int, str, bool, bool, datetime, str]], *, is_dated: bool = False
) -> set[int]:
    """Write the states of VMs; the VMs whose state was written. `is_dated`: where what is known is newer, it stays.

    What was made just now is newer, whatever a clock says. That the portal has to ask a VM itself is not answered by what
    was made elsewhere, perhaps before.
    """
    if not rows:
        return set()
    values, parameters = rowset(_STATE, sorted(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO updates_vmupdatestate AS s
                (vm_id, patch_set_id, os_build, is_list_complete, is_ready_for_hotpatches, last_assessed_at,
                 assessment_source, error_code, is_awaiting_assessment)
            SELECT r.vm_id, r.patch_set_id, r.os_build, r.is_list_complete, r.is_ready, r.at, r.source, '', false
            FROM {values} r
            ON CONFLICT (vm_id) DO UPDATE SET
                patch_set_id = EXCLUDED.patch_set_id, os_build = EXCLUDED.os_build,
                is_list_complete = EXCLUDED.is_list_complete,
                is_ready_for_hotpatches = EXCLUDED.is_ready_for_hotpatches,
                last_assessed_at = EXCLUDED.last_assessed_at, assessment_source = EXCLUDED.assessment_source,
                error_code = '',
                is_awaiting_assessment = s.is_awaiting_assessment AND EXCLUDED.assessment_source <> %s
            WHERE NOT %s OR s.last_assessed_at IS NULL OR s.last_assessed_at <= EXCLUDED.last_assessed_at
            RETURNING vm_id
            """,  # noqa: S608 (ours)
            [*parameters, AssessmentSource.PORTAL.value, is_dated],
        )
        return {vm_id for (vm_id,) in cursor.fetchall()}


_INSTALLED = {
    "vm_id": "bigint",
    "patch_id": "bigint",
    "version": "text",
    "installed_on": "timestamptz",
    "installed_by_id": "uuid",
}


def _insert_installed(new: Sequence[tuple[int, int, str, datetime, UUID | None]]) -> None:
    if not new:
        return
    rows, parameters = rowset(_INSTALLED, new)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO updates_installedpatch ({', '.join(_INSTALLED)}) SELECT {', '.join(_INSTALLED)}"  # noqa: S608 (ours)
            f" FROM {rows} r ORDER BY vm_id, patch_id ON CONFLICT DO NOTHING",
            parameters,
        )


def _record_installed(found: Sequence[AssessmentFound], pks: Mapping[str, int]) -> None:
    """Write the difference between what was recorded as installed and what is; nothing where nothing changed."""
    new: list[tuple[int, int, str, datetime, UUID | None]] = []
    gone: list[tuple[int, int]] = []
    moved: list[tuple[int, int, str, datetime]] = []
    for item in found:
        if item.installed == item.facts.ref.installed:
            continue
        before = {update.patch.key: update for update in item.facts.ref.installed}
        after = {update.patch.key: update for update in item.installed}
        own = {update.patch.key for update in item.reported}
        vm_id = item.facts.ref.vm_id
        gone.extend((vm_id, pks[key]) for key in before.keys() - after.keys())
        for key, update in after.items():
            if key not in before:
                by = item.installation_id if key in own else None
                new.append((vm_id, pks[key], update.patch.version, update.installed_on, by))
            elif before[key].patch.version != update.patch.version:
                moved.append((vm_id, pks[key], update.patch.version, update.installed_on))
    _insert_installed(new)
    with connection.cursor() as cursor:
        if moved:
            cursor.execute(
                """
                UPDATE updates_installedpatch i SET version = r.version, installed_on = r.installed_on
                FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[])
                    AS r(vm_id, patch_id, version, installed_on)
                WHERE i.vm_id = r.vm_id AND i.patch_id = r.patch_id
                """,
                [list(column) for column in zip(*sorted(moved), strict=True)],
            )
        if gone:
            cursor.execute(
                """
                DELETE FROM updates_installedpatch i
                USING unnest(%s::bigint[], %s::bigint[]) AS r(vm_id, patch_id)
                WHERE i.vm_id = r.vm_id AND i.patch_id = r.patch_id
                """,
                [list(column) for column in zip(*sorted(gone), strict=True)],
            )


def _summary(item: AssessmentFound, urgent: int, patch_set: int, judge: Judge, now: datetime) -> VmSummary:
    """What lists show of a VM after this assessment, by the rules.

    `urgent`: how many critical and security updates it lacks; `patch_set`: the number of all that it lacks.
    """
    facts = item.facts
    other = len(item.result.available) - urgent
    words = judge.words(
        Standing(
            eligibility=facts.eligibility_with(item.os_build),
            is_hotpatch_enabled=facts.ref.settings.enable_hotpatching,
            installed_kbs=frozenset(update.patch.kb_number for update in item.installed),
            is_list_complete=item.is_list_complete,
            os_build=item.os_build,
            is_reboot_pending=item.result.is_reboot_pending,
            was_assessed=True,
            is_ready=item.result.is_ready_for_hotpatches,
        ),
        moment=facts.as_of(now),
        last_assessed_at=item.at(now),
        now=now,
        available_count=urgent + other,
    )
    return VmSummary(
        vm_id=facts.ref.vm_id,
        update_status=words.update_status,
        critical_and_security_count=urgent,
        other_count=other,
        is_reboot_pending=item.result.is_reboot_pending,
        hotpatch_status=words.hotpatch_status,
        hotpatch_track=words.hotpatch_track,
        product_line=words.product_line,
        patch_set=patch_set,
    )
