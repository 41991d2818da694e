"""Verified truth: whether a later look confirms what an installation reported (docs/rules.md, verification)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import connection

from connectors.catalogue import Catalogue
from connectors.protocol import AssessmentResult, InstallationResult, RestartResult
from db.arrays import array
from patching.codes import RolloutReason
from patching.outcome import ExpectedPatch, VerificationResult, verify
from patching.restart import verify_restart
from patching.terms import InstallationState, OperationKind, Patch, ProductLine, RebootStatus, RunStatus, Verification
from updates.models import WELL_ENDED_STATES, MemberState, Operation, PatchResult
from updates.selectors.catalogue import LoadedCatalogue
from updates.selectors.vm_facts import VmFacts
from updates.services.assessments import AssessmentFound

Detail = Mapping[str, Any] | None


def conclude(result: InstallationResult, *, facts: VmFacts, catalogue: Catalogue) -> tuple[Verification, Detail]:
    """What the run's own final assessment says of its report; pending where it brought none, or an older one than is known."""
    final = result.final_assessment
    if final is None or not final.has_found or _is_older(final, facts):
        return Verification.PENDING, None
    reported = [o.patch for o in result.patches if o.state is InstallationState.INSTALLED]
    return _as_kept(_compare(reported, final, final.os_build, facts.line_with(final.os_build), catalogue))


def conclude_restart(result: RestartResult, *, facts: VmFacts) -> Verification:
    """What the look of a restart says of it; pending where it brought none, or an older one than is known."""
    final = result.final_assessment
    has_looked = final is not None and final.has_found and not _is_older(final, facts)
    after = final.is_reboot_pending if final is not None and has_looked else None
    return verify_restart(result.status, result.reboot_status, is_reboot_pending_after=after)


def _is_older(final: AssessmentResult, facts: VmFacts) -> bool:
    known = facts.last_assessed_at
    return final.assessed_at is not None and known is not None and final.assessed_at < known


def verify_earlier_installations(*, found: Sequence[AssessmentFound], catalogue: LoadedCatalogue) -> None:
    """Let these assessments confirm or contradict the runs that still wait for one, in three statements.

    One that was made before a run ended says nothing about it.
    """
    by_vm = {item.facts.ref.vm_id: item for item in found}
    waiting = {
        pk: (vm_id, OperationKind(kind))
        for pk, vm_id, kind, finished_at in Operation.objects.ended()
        .filter(vm__any=array(by_vm), verification=Verification.PENDING.value)
        .values_list("pk", "vm_id", "kind", "finished_at")
        if (made := by_vm[vm_id].result.assessed_at) is None or finished_at is None or made >= finished_at
    }
    if not waiting:
        return
    reported: dict[UUID, list[Patch]] = defaultdict(list)
    rows = PatchResult.objects.filter(
        operation_id__in=list(waiting), state=InstallationState.INSTALLED.value
    ).select_related("patch")
    for row in rows:
        met = replace(row.patch.facts, update_id=row.update_id, version=row.version)
        reported[row.operation_id].append(met)
    _write_verifications(
        (
            pk,
            *_as_kept(
                _restarted(by_vm[vm_id].result)
                if kind is OperationKind.RESTART
                else _compare(
                    reported[pk],
                    by_vm[vm_id].result,
                    by_vm[vm_id].os_build,
                    by_vm[vm_id].facts.line_with(by_vm[vm_id].os_build),
                    catalogue.facts,
                )
            ),
        )
        for pk, (vm_id, kind) in waiting.items()
    )


def _restarted(after: AssessmentResult) -> VerificationResult:
    """What a look says of a restart that reported success before it."""
    said = RunStatus.SUCCEEDED, RebootStatus.COMPLETED
    return VerificationResult(verify_restart(*said, is_reboot_pending_after=after.is_reboot_pending))


def _compare(
    reported: Iterable[Patch],
    after: AssessmentResult,
    build_after: str,
    line: ProductLine | None,
    catalogue: Catalogue,
) -> VerificationResult:
    return verify(
        [ExpectedPatch(patch, _build(patch, line, catalogue)) for patch in reported],
        available_after=after.available,
        build_after=build_after,
        is_reboot_outstanding=after.is_reboot_pending,
    )


def _build(patch: Patch, line: ProductLine | None, catalogue: Catalogue) -> str:
    """The build that a patch brings, empty where none is recorded."""
    release = catalogue.release_by_kb.get((line, patch.kb_number)) if line else None
    return release.build if release else ""


def _as_kept(result: VerificationResult) -> tuple[Verification, Detail]:
    if result.verification is not Verification.CONTRADICTED:
        return result.verification, None
    return result.verification, {
        "contradicted": [patch.key for patch in result.contradicted],
        "kb_numbers": [patch.kb_number for patch in result.contradicted],
        "expected_build": result.expected_build,
        "found_build": result.found_build,
    }


def _write_verifications(rows: Iterable[tuple[UUID, Verification, Detail]]) -> None:
    ordered = sorted(rows, key=lambda row: row[0])
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE updates_operation o SET verification = r.verification, verification_detail = r.detail::jsonb
            FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS r(id, verification, detail)
            WHERE o.id = r.id
            """,
            [
                [row[0] for row in ordered],
                [row[1].value for row in ordered],
                [json.dumps(row[2]) if row[2] else None for row in ordered],
            ],
        )
        contradicted = array(row[0] for row in ordered if row[1] is Verification.CONTRADICTED)
        cursor.execute(
            _IN_ROLLOUTS,
            {
                "failed": MemberState.FAILED.value,
                "contradicted": RolloutReason.CONTRADICTED,
                "operations": contradicted,
                "counted_well": [MemberState.STARTED.value, MemberState.SUCCEEDED.value],
                "ended_well": WELL_ENDED_STATES,
            },
        )


# A run that is contradicted counts against its rollout, also where the look came after the end of the run.
_IN_ROLLOUTS = """
UPDATE updates_rolloutmember m SET status = %(failed)s, code = %(contradicted)s, probe_due_at = NULL
FROM updates_operation o
WHERE m.operation_id = ANY(%(operations)s::uuid[]) AND o.id = m.operation_id AND m.status = ANY(%(counted_well)s)
  AND o.state = ANY(%(ended_well)s)
"""
