"""Tags of machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.db import transaction

from audit.services import Act, record
from audit.tags import Tag
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@transaction.atomic
def change_tags(*, vm_id: int, tags: Mapping[str, str], changed_by: User) -> bool:
    """Give a machine these tags and no others. False: it has just these."""
    vm = VirtualMachine.objects.select_for_update(of=("self",), no_key=True).get(pk=vm_id)
    if vm.tags == dict(tags):
        return False
    act = Act(
        Tag.RECORD_CHANGE,
        **vm.where,
        source="vms.virtualmachine",
        before={"tags": vm.tags},
        after={"tags": dict(tags)},
    )
    record(acts=[act], by=changed_by)
    VirtualMachine.objects.filter(pk=vm_id).update(tags=dict(tags))
    return True
