"""One operation with its results and its timeline, for its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from django.urls import reverse

from connectors.protocol import Capability
from patching.freezes import Hold
from patching.rollback import RollbackOrder
from patching.terms import (
    InstallationPlan,
    InstallationState,
    OperationKind,
    OperationState,
    PatchSettings,
)
from updates.models import BulkRequest, Operation, OperationEvent, PatchResult, Rollout
from updates.payloads import Payload, readable
from updates.selectors.bulk import bulk_requests_of
from updates.selectors.freezes import hold_of
from updates.selectors.polling import poll_seconds
from updates.selectors.rollouts import rollouts_of
from updates.selectors.waits import StartWait, start_wait
from vms.access import Access, access_or_404
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

_RESULT_ORDER = tuple(
    InstallationState(name) for name in ("Failed", "Pending", "Installed", "Excluded", "NotSelected", "Unknown")
)


@dataclass(frozen=True, slots=True)
class OperationPage:
    """What the page of an operation shows."""

    operation: Operation
    access: Access
    payload: Payload | None
    results: tuple[PatchResult, ...]
    events: tuple[OperationEvent, ...]
    rollout: Rollout | None  # that it is part of, if the reader may see it
    bulk: BulkRequest | None
    start_wait: StartWait | None  # what its budget still makes it wait, while it is queued
    hold: Hold | None  # the freeze that keeps it from starting, while it is queued
    now: datetime

    @property
    def is_installation(self) -> bool:
        """Whether it installs."""
        return self.operation.kind == OperationKind.INSTALLATION

    @property
    def is_restart(self) -> bool:
        """Whether it restarts the machine."""
        return self.operation.kind == OperationKind.RESTART

    @property
    def plan(self) -> InstallationPlan | None:
        """What an installation is to do."""
        return self.payload if isinstance(self.payload, InstallationPlan) else None

    @property
    def rollback(self) -> RollbackOrder | None:
        """What a rollback undoes."""
        return self.payload if isinstance(self.payload, RollbackOrder) else None

    @property
    def settings(self) -> PatchSettings | None:
        """What a change of settings carries to the machine."""
        return self.payload if isinstance(self.payload, PatchSettings) else None

    @property
    def is_queued(self) -> bool:
        """Whether it waits."""
        return self.operation.state == OperationState.QUEUED

    @property
    def can_cancel(self) -> bool:
        """Whether the reader may cancel it now."""
        return self.is_queued and may_cancel(self.operation, self.access)

    @property
    def can_roll_back(self) -> bool:
        """Whether the reader may plan the way back from what it installed."""
        has_installed = self.is_installation and self.operation.installed_count > 0
        can_uninstall = Capability.UNINSTALL in self.operation.vm.connection.capabilities
        return has_installed and can_uninstall and self.access.may_operate

    @property
    def cannot_be_stopped(self) -> bool:
        """Whether it runs on a machine, where no connector stops it: told where the button would be."""
        return not self.operation.is_ended and not self.is_queued

    @property
    def can_run_again(self) -> bool:
        """Whether the reader may start the same once more: it has ended, and there is a button for it."""
        return self.operation.is_ended and self.access.may_operate

    @property
    def poll_seconds(self) -> int:
        """How long the page waits before it looks again."""
        return poll_seconds(self.operation.created_at, self.now)

    @property
    def elapsed(self) -> timedelta | None:
        """How long it has run, or ran."""
        if self.operation.started_at is None:
            return None
        return (self.operation.finished_at or self.now) - self.operation.started_at

    @property
    def percent(self) -> int:
        """How far it is, 0 to 100."""
        progress: dict[str, Any] = self.operation.progress or {}
        return round(100 * float(progress.get("fraction", 0)))

    @property
    def counts(self) -> dict[str, int]:
        """How many patches are in each state, by what has been reported so far."""
        return {state.name.lower(): sum(row.state == state for row in self.results) for state in InstallationState}

    @property
    def missing_kbs(self) -> frozenset[str]:
        """What was reported as installed and is not there, by the look at the machine that followed."""
        if not self.operation.is_contradicted:
            return frozenset()
        return frozenset((self.operation.verification_detail or {}).get("kb_numbers", ()))

    @property
    def troubling_kbs(self) -> tuple[str, ...]:
        """What failed, or was reported as installed and is not there: what to leave out where it stays so."""
        failed = {row.patch.kb_number for row in self.results if row.state == InstallationState.FAILED}
        return tuple(sorted((failed | self.missing_kbs) - {""}))

    @property
    def can_exclude(self) -> bool:
        """Whether the reader may run the plan again without those, and something is left of it then."""
        if self.plan is None or not self.can_run_again or not self.troubling_kbs:
            return False
        return bool(self.plan.classifications or set(self.plan.kb_numbers_to_include) - set(self.troubling_kbs))


def may_cancel(operation: Operation, access: Access) -> bool:
    """Whether the reader's role is enough: settings take an Owner, everything else a Patch operator."""
    return access.may_own if operation.kind == OperationKind.SETTINGS else access.may_operate


def operation_or_404(user: User | AnonymousUser, pk: UUID) -> tuple[Operation, Access]:
    """An operation and the reader's access to its VM; 404 if the reader may not see that VM."""
    operation = get_object_or_404(Operation.objects.select_related("requested_by"), pk=pk)
    access = access_or_404(user, operation.vm_id)
    operation.vm = access.vm
    return operation, access


def split_watched(
    user: User | AnonymousUser, operation_ids: Sequence[UUID], *, seen_at: str
) -> tuple[list[UUID], list[Operation]]:
    """Of these operations: the ids that have not ended, and those that have and are news.

    What the reader is looking at (`seen_at`: the path of the page) is no news; what the reader may not see or is gone
    is neither.
    """
    visible = VirtualMachine.objects.visible_to(user)
    rows = list(Operation.objects.filter(pk__in=operation_ids, vm__in=visible).select_related("vm"))
    waiting = [row.pk for row in rows if not row.is_ended]
    pages = {
        row.pk: {reverse("updates:operation", args=[row.pk]), reverse("updates:blade", args=[row.vm_id])}
        for row in rows
    }
    news = [row for row in rows if row.is_ended and seen_at not in pages[row.pk]]
    return waiting, news


def load_operation(user: User, pk: UUID, *, now: datetime) -> OperationPage:
    """An operation with its results (what needs attention first) and its timeline."""
    operation, access = operation_or_404(user, pk)
    results = sorted(
        PatchResult.objects.filter(operation=operation).select_related("patch"),
        key=lambda row: (_RESULT_ORDER.index(InstallationState(row.state)), row.patch.title),
    )
    return OperationPage(
        operation=operation,
        access=access,
        payload=readable(operation.kind, operation.payload),
        results=tuple(results),
        events=tuple(OperationEvent.objects.filter(operation=operation)),
        rollout=rollouts_of(user).filter(members__operation=operation).first(),
        bulk=bulk_requests_of(user).filter(outcomes__operation=operation).order_by("created_at").first(),
        start_wait=(
            start_wait(Operation.objects.filter(pk=pk), now=now) if operation.state == OperationState.QUEUED else None
        ),
        hold=hold_of(operation, now=now),
        now=now,
    )
