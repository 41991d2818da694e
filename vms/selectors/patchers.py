"""Who patches a machine: the rule, and the same for sets of machines in the database."""

from __future__ import annotations

import json
from functools import cache
from itertools import product

from django.db.models import BooleanField, ExpressionWrapper, F, Func, JSONField, Q, TextField, Value
from django.db.models.functions import Cast

from connectors.registry import kinds_that_leave_patching_to_the_portal
from patching.orchestrator import Patcher, PatcherVerdict, who_patches
from patching.terms import PatchMode, Platform
from vms.models import Connection, VirtualMachine, VirtualMachineQuerySet


def connections_in_charge() -> Q:
    """What `Connection.is_portal_in_charge` says, for the database."""
    return Q(kind__in=kinds_that_leave_patching_to_the_portal()) | ~Q(platform=Platform.AZURE.value)


def patcher_of(vm: VirtualMachine, *, has_schedule: bool) -> PatcherVerdict:
    """Who patches this VM (loaded with its connection)."""
    return who_patches(
        patch_mode=PatchMode(vm.patch_mode),
        is_bypassing=vm.bypass_platform_safety_checks,
        has_schedule=has_schedule,
        is_portal_in_charge=vm.connection.is_portal_in_charge,
        is_automatic_on=vm.connection.is_patching_automatically,
        has_agent=vm.provision_vm_agent,
    )


@cache
def _patchers() -> str:
    """The rule's answer to every combination of what it depends on, for the database to look up."""
    answers = {}
    for mode in PatchMode:
        for flags in product("ft", repeat=5):  # as PostgreSQL writes booleans
            is_bypassing, has_agent, is_portal_in_charge, is_automatic_on, has_schedule = (
                flag == "t" for flag in flags
            )
            verdict = who_patches(
                patch_mode=mode,
                is_bypassing=is_bypassing,
                has_schedule=has_schedule,
                is_portal_in_charge=is_portal_in_charge,
                is_automatic_on=is_automatic_on,
                has_agent=has_agent,
            )
            answers["".join((mode.value, *flags))] = verdict.patcher.value
    return json.dumps(answers)


def _patcher(is_scheduled: F) -> Func:
    """Who patches a VM, in the database."""
    in_charge = Q(connection__in=Connection.objects.filter(connections_in_charge()).order_by().values("pk"))
    automatic = Q(connection__in=Connection.objects.filter(is_patching_automatically=True).order_by().values("pk"))
    facts = Func(
        "patch_mode",
        "bypass_platform_safety_checks",
        "provision_vm_agent",
        ExpressionWrapper(in_charge, output_field=BooleanField()),
        ExpressionWrapper(automatic, output_field=BooleanField()),
        is_scheduled,
        function="concat",
        output_field=TextField(),
    )
    answers = Cast(Value(_patchers()), JSONField())
    return Func(answers, facts, template="(%(expressions)s)", arg_joiner=" ->> ", output_field=TextField())


def with_patchers(vms: VirtualMachineQuerySet, *, scheduled: Q | None = None) -> VirtualMachineQuerySet:
    """These VMs with `is_scheduled_now` and `patcher_now`: who patches each, judged afresh by the rule.

    `scheduled`: the VMs that an enabled maintenance configuration means. None: those of which it is recorded.
    """
    now = F("is_scheduled") if scheduled is None else ExpressionWrapper(scheduled, output_field=BooleanField())
    return vms.annotate(is_scheduled_now=now).annotate(patcher_now=_patcher(F("is_scheduled_now")))


def vms_patched_by(patcher: Patcher, vms: VirtualMachineQuerySet, *, scheduled: Q) -> VirtualMachineQuerySet:
    """Those of these VMs that `patcher` patches, judged afresh; see `with_patchers`."""
    return with_patchers(vms, scheduled=scheduled).filter(Q(patcher_now=patcher.value))


def with_stale_patchers(vms: VirtualMachineQuerySet, *, scheduled: Q | None = None) -> VirtualMachineQuerySet:
    """Those of these VMs whose recorded answer is not today's; see `with_patchers`.

    A VM's schedules are asked for once: where nothing changed in them, the answer follows from what is recorded of them.
    """
    judged = with_patchers(vms, scheduled=scheduled)
    return judged.exclude(Q(patcher=_patcher(F("is_scheduled"))) & Q(is_scheduled=F("is_scheduled_now")))
