"""The way back of many VMs, planned from what is recorded of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from connectors.protocol import Capability
from patching.rollback import RollbackOrder, RollbackRefusal, plan_rollback
from patching.terms import ProductLine
from updates.selectors.catalogue import load_catalogue
from updates.selectors.vm_facts import load_vm_facts


def rollback_orders(vm_ids: Collection[int], *, now: datetime) -> dict[int, RollbackOrder | RollbackRefusal]:
    """The way back of each of these VMs, or why there is none (a fixed number of queries; alike VMs are judged once)."""
    catalogue = load_catalogue()
    known: dict[tuple[ProductLine | None, str, frozenset[str], bool, datetime], RollbackOrder | RollbackRefusal] = {}
    found: dict[int, RollbackOrder | RollbackRefusal] = {}
    for vm_id, facts in load_vm_facts(vm_ids, catalogue).items():
        if Capability.UNINSTALL not in facts.capabilities:
            found[vm_id] = RollbackRefusal.NOT_SUPPORTED
            continue
        if facts.last_assessed_at is None:
            found[vm_id] = RollbackRefusal.UNKNOWN_STATE
            continue
        kbs = frozenset(update.patch.kb_number for update in facts.ref.installed if update.patch.kb_number)
        line, os_build, is_complete, as_of = (
            facts.line_with(facts.ref.os_build),
            facts.ref.os_build,
            facts.is_list_complete,
            facts.as_of(now),
        )
        key = (line, os_build, kbs, is_complete, as_of)
        if key not in known:
            known[key] = plan_rollback(
                catalogue.facts.releases,
                line,
                installed_kbs=kbs,
                os_build=os_build,
                is_list_complete=is_complete,
                as_of=as_of,
            )
        found[vm_id] = known[key]
    return found
