"""Which machines have a KB, failed on it within a week, or hold it back: what the list's filters of these names leave."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db.models import Q, QuerySet
from django.utils import timezone

from db.arrays import array
from patching.terms import InstallationState, OperationKind, OperationState
from updates.models import InstalledPatch, KbHold, Patch, PatchResult
from updates.selectors.fleet import FleetScope, Place
from updates.selectors.fleet_trouble import TOLD_FOR
from vms.models import VirtualMachine, VirtualMachineQuerySet


def machines_of(place: Place, scope: FleetScope) -> VirtualMachineQuerySet:
    """The machines that `count_fleet` counts of this place in this scope, in no order."""
    vms = VirtualMachine.objects.order_by().filter(gone_at=None)
    if scope.connection is not None:
        vms = vms.filter(connection=scope.connection)
    if scope.product_line:
        vms = vms.filter(product_line=scope.product_line)
    if place.groups is None:
        return vms
    groups = Q(resource_group__any=array(place.groups))
    if place.others is None:
        return vms.filter(groups)
    others = place.others.order_by().values("pk")
    if not place.groups:
        return vms.filter(pk__in=others)
    # By UNION: PostgreSQL would walk all machines for an OR of the two.
    return vms.filter(pk__in=VirtualMachine.objects.order_by().filter(groups).values("pk").union(others))


def failures(now: datetime) -> QuerySet[PatchResult]:
    """What failed in runs that ended within a week, through the index of such runs."""
    return PatchResult.objects.order_by().filter(
        ~Q(operation__kind=OperationKind.ASSESSMENT.value),
        state=InstallationState.FAILED.value,
        operation__state=OperationState.FAILED.value,
        operation__finished_at__gt=now - TOLD_FOR,
    )


def having(vms: VirtualMachineQuerySet, patches: Collection[int]) -> VirtualMachineQuerySet:
    """Those of these machines on which one of these patches is installed, as far as it was told."""
    installed = InstalledPatch.objects.order_by().filter(patch__any=array(patches))
    return vms.filter(pk__in=installed.values("vm"))


def failed_on(vms: VirtualMachineQuerySet, kb_number: str, now: datetime) -> VirtualMachineQuerySet:
    """Those of these machines with a run within a week that failed on this KB."""
    return vms.filter(pk__in=failures(now).filter(patch__kb_number=kb_number).values("operation__vm"))


def holding(vms: VirtualMachineQuerySet, kb_number: str) -> VirtualMachineQuerySet:
    """Those of these machines on which this KB is held back."""
    return vms.filter(pk__in=KbHold.objects.order_by().filter(kb_number=kb_number).values("vm"))


def vms_having(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """`having` for the list's filter, which names a KB (one query now)."""
    rows = Patch.objects.order_by("pk").filter(kb_number=_number(asked))
    return having(vms, list(rows.values_list("pk", flat=True)))


def vms_failed_on(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """`failed_on` for the list's filter."""
    return failed_on(vms, _number(asked), timezone.now())


def vms_holding(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """`holding` for the list's filter."""
    return holding(vms, _number(asked))


def _number(asked: str) -> str:
    return asked.removeprefix("KB")
