"""How many maintenance configurations mean a machine: none, one, or several; and what attaching a selection would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add, or_
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Case, Count, Exists, Func, IntegerField, JSONField, OuterRef, Q, Value, When
from django.db.models.lookups import Exact, GreaterThan

from db.bounded import ListTooSlowError, fetch_bounded
from updates.models import MaintenanceConfiguration
from updates.selectors.scopes import kept_scope_filter
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.selection import VmSelection

NONE, ONE, SEVERAL = "none", "one", "several"


# The scopes of the enabled configurations by their ids, to annotate any row with: a page pays no statement for them.
SCOPES = Func(
    template="""(
        SELECT coalesce(jsonb_object_agg(scoped.id, scoped.scope), '{}'::jsonb)
        FROM updates_maintenanceconfiguration scoped WHERE scoped.is_enabled
    )""",
    output_field=JSONField(),
)


def _meanings(scopes: Mapping[str, Any] | None = None) -> list[Q]:
    """For each enabled configuration, the machines that it means (one query; none where `SCOPES` were read before)."""
    through = MaintenanceConfiguration.vms.through.objects
    enabled = MaintenanceConfiguration.objects.filter(is_enabled=True)
    found = []
    for pk, scope in enabled.values_list("pk", "scope") if scopes is None else scopes.items():
        named = Q(Exists(through.filter(maintenanceconfiguration_id=int(pk), virtualmachine_id=OuterRef("pk"))))
        dynamic = kept_scope_filter(scope)
        found.append(named | dynamic if dynamic else named)
    return found


def _number_of(meanings: list[Q]) -> Any:
    counted = [Case(When(means, then=Value(1)), default=Value(0), output_field=IntegerField()) for means in meanings]
    return reduce(add, counted, Value(0, output_field=IntegerField()))


def vms_covered(vms: VirtualMachineQuerySet, coverage: str) -> VirtualMachineQuerySet:
    """Those of these machines that no enabled configuration means, or one, or several."""
    meanings = _meanings()
    if coverage == NONE:
        return vms.exclude(reduce(or_, meanings)) if meanings else vms
    if len(meanings) < (1 if coverage == ONE else 2):
        return vms.none()
    number = _number_of(meanings)
    return vms.filter(Exact(number, 1) if coverage == ONE else GreaterThan(number, 1))


def count_covered(
    vms: VirtualMachineQuerySet | None = None, *, scopes: Mapping[str, Any] | None = None
) -> Mapping[str, int] | None:
    """How many of these machines (of all, where none are given) no enabled configuration means, one, several.

    Machines that are gone count for nothing. None where counting takes too long. Two queries; one where `scopes` (`SCOPES`)
    were read before.
    """
    meanings = _meanings(scopes)
    alive = (VirtualMachine.objects.all() if vms is None else vms).filter(gone_at=None).order_by()
    number = alive.annotate(coverage=_number_of(meanings)).values("coverage").annotate(machines=Count("pk"))
    try:
        rows = fetch_bounded(*number.values_list("coverage", "machines").query.sql_with_params())
    except EmptyResultSet:
        rows = []
    except ListTooSlowError:
        return None
    found = {NONE: 0, ONE: 0, SEVERAL: 0}
    for coverage, machines in rows:
        found[NONE if coverage == 0 else ONE if coverage == 1 else SEVERAL] += machines
    return found


@dataclass(frozen=True, slots=True)
class Attachment:
    """Of some machines, how many a configuration names already, and how many it means by its scope, named or not."""

    machines: int
    named: int
    by_scope: int

    @property
    def unnamed(self) -> int:
        """How many it does not name yet."""
        return self.machines - self.named


def attachment_of(configuration: MaintenanceConfiguration, selection: VmSelection) -> Attachment:
    """Where the machines of a selection stand with a configuration (one query)."""
    through = MaintenanceConfiguration.vms.through.objects
    named = Q(Exists(through.filter(maintenanceconfiguration_id=configuration.pk, virtualmachine_id=OuterRef("pk"))))
    counts = {"machines": Count("pk"), "named": Count("pk", filter=named)}
    if dynamic := kept_scope_filter(configuration.scope):
        counts["by_scope"] = Count("pk", filter=dynamic)
    return Attachment(**({"by_scope": 0} | selection.vms.aggregate(**counts)))
